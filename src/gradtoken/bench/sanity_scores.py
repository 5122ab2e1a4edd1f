"""Sanity checks as groups of metrics: what a map of the leading class depends on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.bench.maps import Maps, maps_of
from gradtoken.bench.swept import MetricValues
from gradtoken.metrics import sanity
from gradtoken.models.model import Model
from gradtoken.trace.record import record


def randomised(maps: Maps) -> MetricValues:
    """Rank correlation with the maps of a model that is randomised from the head down.

    `randomised` is the mean over the stages, `randomised@head` and so on are the stages. None where
    the model's blocks are not known.
    """
    case = maps.case
    if not case.trace.model.anatomy.blocks:
        return {}
    stages = sanity.cascading_randomisation(case.trace.model, case.pixels, _explain(maps))
    values = {f"randomised@{stage.name}": float(stage.correlation) for stage in stages}
    mean = torch.tensor(list(values.values())).mean()
    return _of_leading(maps, {"randomised": float(mean), **values})


def input_shift(maps: Maps) -> MetricValues:
    """The largest change of a map under a shift of the input that the model does not see.

    None where the model does not begin with a convolution that can take the shift out.
    """
    case = maps.case
    if not sanity.can_shift(case.trace.model, case.pixels.shape[1]):
        return {}
    change = sanity.input_shift(case.trace.model, case.pixels, _explain(maps))
    return _of_leading(maps, {"input_shift": float(change)})


def _explain(maps: Maps) -> Callable[[Model, Tensor], Float[Tensor, "1 tokens"]]:
    """The method's map of the leading class, of any model and image."""
    leading = maps.case.classes[maps.case.leading]
    return lambda model, images: maps_of(maps.method, record(model, images), [leading]).flatten(1)


def _of_leading(maps: Maps, values: dict[str, float]) -> MetricValues:
    name = maps.case.names[maps.case.leading]
    return {metric: {name: value} for metric, value in values.items()}
