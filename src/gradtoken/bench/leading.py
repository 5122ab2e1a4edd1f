"""The leading class of an image: its map, its name, and what metrics are to know about it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradtoken.bench.cases import Case
from gradtoken.bench.maps import Maps
from gradtoken.bench.swept import MetricValues
from gradtoken.targets.activation import Activation


def named(case: Case, values: Tensor) -> dict[str, float]:
    """The value of each target, by its name."""
    return dict(zip(case.names, values.tolist(), strict=True))


def of_leading(maps: Maps, values: dict[str, float]) -> MetricValues:
    """Values of the leading class, by metric and its name."""
    name = maps.case.names[maps.case.leading]
    return {metric: {name: value} for metric, value in values.items()}


def hit_label(maps: Maps) -> Tensor | None:
    """The class that is a hit: the data set's label, or the leading one of the classes that it
    names; None (the model's own top class) where it names no class.
    """
    case = maps.case
    if case.label is None:
        return None
    label = case.label if case.sample.label is not None else case.classes[case.leading]
    return torch.tensor([label])


def leading_class(case: Case) -> Tensor:
    """Its id, as a batch of one."""
    return torch.tensor([case.classes[case.leading]])


def leading_map(maps: Maps) -> tuple[Tensor, Tensor]:
    """The image, and the map of the leading class on its pixels, as a batch of one."""
    image = maps.case.pixels
    return image, maps.pixels[maps.case.leading][None].to(image.device)


def normalisation(case: Case) -> dict[str, Any]:
    """What `filled` is to know about the image."""
    preprocess = case.trace.model.preprocess
    return {"mean": preprocess.mean, "std": preprocess.std}


def model_activation(maps: Maps) -> Activation:
    """How the logits of the model that is explained become probabilities."""
    return maps.case.trace.model.activation


def leading_inputs(maps: Maps) -> dict[str, Any]:
    """Arguments of a metric that changes the image, for the map of the leading class."""
    image, relevance = leading_map(maps)
    return {
        "predict": maps.case.trace.model,
        "images": image,
        "maps": relevance,
        "classes": leading_class(maps.case),
        **normalisation(maps.case),
    }
