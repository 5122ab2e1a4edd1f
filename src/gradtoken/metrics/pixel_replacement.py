"""A model's logits on images of which more and more pixels are replaced, in a map's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradtoken.errors import MethodError
from gradtoken.models.model import Model
from gradtoken.targets.activation import Activation, check_activation
from gradtoken.targets.activation import probabilities as class_probabilities

Predict: TypeAlias = Callable[
    [Float[Tensor, "images channels height width"]], Float[Tensor, "images classes"]
]
"""Logits of preprocessed images, without a graph; a `Model` is such a function."""

Maps: TypeAlias = Float[Tensor, "batch height width"]
Images: TypeAlias = Float[Tensor, "batch channels height width"]

CHUNK = 64
"""Images that go through the model at once."""


def check_finite(maps: Maps) -> None:
    """Check that pixels can be ordered by relevance.

    Raises:
        MethodError: NaN or infinite relevance.
    """
    if not bool(torch.isfinite(maps).all()):
        raise MethodError(
            "a map has NaN or infinite relevance, so its pixels have no order; leave it out."
        )


def ranks(maps: Maps) -> Int[Tensor, "batch pixels"]:
    """Each pixel's rank by relevance, 0 is the most relevant; equal ones in reading order.

    Raises:
        MethodError: NaN or infinite relevance.
    """
    check_finite(maps)
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


@dataclass(frozen=True, eq=False)
class Replacement:
    """Images of which more and more pixels are replaced by those of other images.

    Args:
        images: preprocessed, (B, C, H, W).
        others: the images that the replacing pixels are taken from, (B, C, H, W).
        places: the rank of each pixel, (B, H * W); the first ranks are replaced first.
        counts: numbers of pixels that are replaced.

    Raises:
        MethodError: not a rank for each pixel of each image.
    """

    images: Images
    others: Images
    places: Int[Tensor, "batch pixels"]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        batch, _, height, width = self.images.shape
        if self.places.shape != (batch, height * width):
            raise MethodError(
                f"{len(self.places)} maps of {self.places.shape[1]} pixels do not fit {batch} "
                f"images of {height}x{width}; give a map per image, brought to its size by "
                "to_pixels."
            )

    def at(self, rows: Sequence[int], counts: Sequence[int]) -> Images:
        """Images with replaced pixels.

        Args:
            rows: which of the images, one for each result.
            counts: how many pixels are replaced in each.
        """
        index = torch.tensor(rows, device=self.images.device)
        replaced = torch.tensor(counts, device=self.images.device)[:, None]
        height, width = self.images.shape[-2:]
        away = (self.places[index] < replaced).view(-1, 1, height, width)
        return torch.where(away, self.others[index], self.images[index])

    def logits(self, predict: Predict) -> Float[Tensor, "batch counts classes"]:
        """Logits at every count.

        Args:
            predict: the model.
        """
        batch = len(self.images)
        jobs = [(b, count) for b in range(batch) for count in self.counts]
        logits = []
        for start in range(0, len(jobs), CHUNK):
            rows, counts = zip(*jobs[start : start + CHUNK], strict=True)
            logits.append(predict(self.at(rows, counts)).double().cpu())
        return torch.cat(logits).unflatten(0, (batch, len(self.counts)))


def activation_of(predict: Predict, activation: Activation | None) -> Activation:
    """How the logits of a function become probabilities.

    Args:
        predict: a `Model`, which has an activation, or another function.
        activation: the activation to use; None is that of a `Model`, and softmax for another
            function.

    Raises:
        ModelError: an unknown activation.
    """
    if activation is not None:
        return check_activation(activation)
    return predict.activation if isinstance(predict, Model) else "softmax"


def probabilities(
    logits: Float[Tensor, "batch counts classes"],
    classes: Int[Tensor, " batch"],
    activation: Activation,
) -> Float[Tensor, "batch counts"]:
    """The probability of each image's class at every count; its logit for "none".

    Args:
        logits: (B, counts, C).
        classes: the class of each image, (B,).
        activation: of the model.

    Raises:
        MethodError: the softmax of one logit, which is 1 whatever the image.
    """
    if activation == "softmax" and logits.shape[-1] == 1:
        raise MethodError(
            "the softmax of one logit is 1 for every image, so there is nothing to measure; pass "
            "activation='sigmoid', or 'none' to follow the logit."
        )
    values = logits if activation == "none" else class_probabilities(logits, activation)
    index = classes.cpu()[:, None, None].expand(-1, logits.shape[1], 1)
    return values.gather(-1, index)[..., 0]
