"""SaCo, the salience-guided faithfulness coefficient (Wu et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradtoken.errors import MethodError
from gradtoken.images.fills import Fill, filled
from gradtoken.metrics.fitting_maps import check_maps
from gradtoken.metrics.in_chunks import logits_in_chunks
from gradtoken.metrics.pixel_replacement import (
    Images,
    Maps,
    Predict,
    activation_of,
    probabilities,
    ranks,
)
from gradtoken.targets.activation import Activation

GROUPS = 10


def saco(
    predict: Predict,
    images: Images,
    maps: Maps,
    classes: Int[Tensor, " batch"],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    groups: int = GROUPS,
    fill: Fill = "mean",
    activation: Activation | None = None,
) -> Float[Tensor, " batch"]:
    """Does a group of pixels matter more than another by as much as its relevance is higher?

    Pixels are ordered by relevance and cut into groups of equal size. Each group alone is replaced,
    and the drop of the class's probability is noted. Every two groups count with the difference of
    their mean relevance, positively where the more relevant one has a drop at least as large, else
    negatively; the sum is divided by the sum of all differences. From -1 to 1, more is better; NaN
    for a constant map.

    Args:
        predict: logits of preprocessed images, (B, C, H, W) to (B, classes); a `Model` is one.
        images: preprocessed, (B, C, H, W).
        maps: relevance of the class on the images' pixels, (B, H, W).
        classes: the class of each image, (B,).
        mean: that the images were normalised with, one number per channel.
        std: that the images were normalised with, one number per channel.
        groups: how many groups the pixels are cut into; the authors' number is 10.
        fill: what a group's pixels become; the authors' is the image's mean colour.
        activation: how logits become probabilities; None is that of a `Model`, and softmax for
            another function. With "none" the logit itself is followed.

    Raises:
        MethodError: fewer than two groups or more than pixels, maps that do not fit the images, or
            NaN or infinite relevance.
    """
    pixels = maps[0].numel()
    check_maps(images, maps)
    if not 2 <= groups <= pixels:
        raise MethodError(f"groups={groups} is not possible; use 2 to {pixels}, one per pixel.")
    members = _members(ranks(maps), groups)
    drops = _drops(predict, images, members, classes, (mean, std), fill, activation)
    counts = members.sum(2).double()
    relevance = (members * maps.flatten(1).double()[:, None]).sum(2) / counts
    return _coefficient(relevance.cpu(), drops)


def _members(
    places: Int[Tensor, "batch pixels"], groups: int
) -> Bool[Tensor, "batch groups pixels"]:
    """The pixels of each group, the most relevant group first."""
    group = places * groups // places.shape[1]
    return group[:, None] == torch.arange(groups, device=places.device)[:, None]


def _drops(
    predict: Predict,
    images: Images,
    members: Bool[Tensor, "batch groups pixels"],
    classes: Int[Tensor, " batch"],
    normalisation: tuple[Sequence[float], Sequence[float]],
    fill: Fill,
    activation: Activation | None,
) -> Float[Tensor, "batch groups"]:
    """By how much the probability falls when a group alone is replaced."""
    others = filled(images, fill, *normalisation)
    none = torch.zeros_like(members[:, :1])
    away = torch.cat([none, members], dim=1).unflatten(2, images.shape[2:])
    changed = (
        torch.where(mask, others[b], image) for b, image in enumerate(images) for mask in away[b]
    )
    logits = logits_in_chunks(predict, changed).unflatten(0, away.shape[:2])
    values = probabilities(logits, classes, activation_of(predict, activation))
    return values[:, :1] - values[:, 1:]


def _coefficient(
    relevance: Float[Tensor, "batch groups"], drops: Float[Tensor, "batch groups"]
) -> Float[Tensor, " batch"]:
    """The signed sum of differences in relevance over all pairs, by the sum of their sizes."""
    first, second = torch.triu_indices(relevance.shape[1], relevance.shape[1], offset=1)
    weights = relevance[:, first] - relevance[:, second]
    agree = drops[:, first] >= drops[:, second]
    whole = weights.sum(1)
    return torch.where(whole > 0, torch.where(agree, weights, -weights).sum(1) / whole, torch.nan)
