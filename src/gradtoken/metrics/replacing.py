"""Running a model on pictures of which more and more pixels are replaced, in a map's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from gradtoken.errors import MethodError

Predict: TypeAlias = Callable[
    [Float[Tensor, "pictures 3 height width"]], Float[Tensor, "pictures classes"]
]
"""Logits of preprocessed pictures, without a graph; a `Model` is one."""

Maps: TypeAlias = Float[Tensor, "batch height width"]
Images: TypeAlias = Float[Tensor, "batch 3 height width"]

Probability: TypeAlias = Callable[
    [Float[Tensor, "batch counts classes"]], Float[Tensor, "batch counts classes"]
]
"""Probabilities of classes by their logits."""

Enlarging: TypeAlias = Literal["bilinear", "nearest", "bicubic"]

_AT_ONCE = 64


def to_pixels(
    tokens: Float[Tensor, "batch rows columns"],
    size: tuple[int, int],
    *,
    mode: Enlarging = "bilinear",
) -> Maps:
    """Token maps on the pixels (height, width) of the model's input.

    "bicubic" may go beyond the tokens' lowest and highest relevance; the other two do not.

    Raises:
        MethodError: another mode.
    """
    if mode not in get_args(Enlarging):
        raise MethodError(
            f"no way to enlarge maps is named {mode!r}; use "
            f"{', '.join(map(repr, get_args(Enlarging)))}."
        )
    corners = None if mode == "nearest" else False
    return F.interpolate(tokens[:, None], size, mode=mode, align_corners=corners)[:, 0]


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


def softmax(
    logits: Float[Tensor, "batch counts classes"],
) -> Float[Tensor, "batch counts classes"]:
    """Probabilities of classes of which one is right."""
    return logits.softmax(-1)


def probabilities(
    logits: Float[Tensor, "batch counts classes"],
    classes: Int[Tensor, " batch"],
    probability: Probability = softmax,
) -> Float[Tensor, "batch counts"]:
    """Probability of one class per image at every count.

    Args:
        logits: of every class.
        classes: which one, for each image.
        probability: makes probabilities of logits, as the model's activation does.
    """
    index = classes.cpu()[:, None, None].expand(-1, logits.shape[1], 1)
    return probability(logits).gather(-1, index)[..., 0]
