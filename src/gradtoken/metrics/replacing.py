"""Running a model on pictures of which more and more pixels are replaced, in a map's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradtoken.errors import MethodError
from gradtoken.models.model import Model
from gradtoken.targets.activation import Activation, check_activation
from gradtoken.targets.activation import probabilities as class_probabilities

Predict: TypeAlias = Callable[
    [Float[Tensor, "pictures channels height width"]], Float[Tensor, "pictures classes"]
]
"""Logits of preprocessed pictures, without a graph; a `Model` is one."""

Maps: TypeAlias = Float[Tensor, "batch height width"]
Images: TypeAlias = Float[Tensor, "batch channels height width"]

_AT_ONCE = 64


def refuse_non_finite(maps: Maps) -> None:
    """Raise MethodError if a map has NaN or infinite relevance, which has no place in an order."""
    if not bool(torch.isfinite(maps).all()):
        raise MethodError(
            "a map has NaN or infinite relevance, so its pixels have no order; leave it out."
        )


def ranks(maps: Maps) -> Int[Tensor, "batch pixels"]:
    """Each pixel's place in the order of relevance, 0 the most; equal ones in reading order.

    Raises:
        MethodError: NaN or infinite relevance.
    """
    refuse_non_finite(maps)
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def replaced_logits(
    predict: Predict, images: Images, others: Images, places: Tensor, counts: Sequence[int]
) -> Float[Tensor, "batch counts classes"]:
    """Logits when the first `count` pixels of each picture, by their places, are the others'.

    Raises:
        MethodError: not one place for each pixel of each picture.
    """
    batch, _, height, width = images.shape
    if places.shape != (batch, height * width):
        raise MethodError(
            f"{len(places)} maps of {places.shape[1]} pixels do not fit {batch} pictures of "
            f"{height}x{width}; give one map per picture, brought to its size by to_pixels."
        )
    jobs = [(b, count) for b in range(batch) for count in counts]
    found = []
    for start in range(0, len(jobs), _AT_ONCE):
        chunk = jobs[start : start + _AT_ONCE]
        rows = torch.tensor([b for b, _ in chunk], device=images.device)
        least = torch.tensor([count for _, count in chunk], device=images.device)[:, None]
        away = (places[rows] < least).view(-1, 1, height, width)
        found.append(predict(torch.where(away, others[rows], images[rows])).double().cpu())
    return torch.cat(found).unflatten(0, (batch, len(counts)))


def activation_of(predict: Predict, activation: Activation | None) -> Activation:
    """How the logits of a function become probabilities.

    Args:
        predict: a `Model`, which knows it, or another function.
        activation: what the caller says; None takes a model's own, and softmax of another function.

    Raises:
        ModelError: an activation that there is not.
    """
    if activation is not None:
        return check_activation(activation)
    return predict.activation if isinstance(predict, Model) else "softmax"


def probabilities(
    logits: Float[Tensor, "batch counts classes"],
    classes: Int[Tensor, " batch"],
    activation: Activation,
) -> Float[Tensor, "batch counts"]:
    """The probability of one class per image at every count; its logit for "none".

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
