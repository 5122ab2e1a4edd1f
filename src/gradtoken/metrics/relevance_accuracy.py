"""Relevance mass accuracy and relevance rank accuracy (Arras, Osman, Samek, 2022).

Both compare a map with the mask of an object, pixel by pixel.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradtoken.metrics.pixel_replacement import Maps, check_finite


def mass_accuracy(
    maps: Maps,
    masks: Bool[Tensor, "batch height width"],
    ignore: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, " batch"]:
    """The part of the positive relevance that lies in the mask; 0 if no relevance is positive.

    NaN where no pixel of the mask counts.

    Args:
        maps: relevance on pixels, (B, H, W).
        masks: of the object.
        ignore: pixels that do not count; None if all do.

    Raises:
        MethodError: NaN or infinite relevance.
    """
    check_finite(maps)
    counted, inside = _pixels(masks, ignore)
    positive = maps.flatten(1).clamp_min(0).double() * counted
    whole = positive.sum(1)
    part = (positive * inside).sum(1) / whole.where(whole > 0, 1)
    return part.where(inside.any(1), torch.nan)


def rank_accuracy(
    maps: Maps,
    masks: Bool[Tensor, "batch height width"],
    ignore: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, " batch"]:
    """The part of the K most relevant pixels that lies in the mask, which has K pixels.

    Pixels that are equally relevant share the places that are left, so a constant map has the
    mask's share of the image, which is chance. NaN where no pixel of the mask counts.

    Args:
        maps: as for `mass_accuracy`.
        masks: as for `mass_accuracy`.
        ignore: as for `mass_accuracy`.

    Raises:
        MethodError: as for `mass_accuracy`.
    """
    check_finite(maps)
    counted, inside = _pixels(masks, ignore)
    size = inside.sum(1, keepdim=True)
    values = maps.flatten(1).masked_fill(~counted, -torch.inf)
    ordered = values.sort(dim=1, descending=True).values
    least = ordered.gather(1, (size - 1).clamp_min(0))
    above, tied = values > least, (values == least) & counted
    left = (size - above.sum(1, keepdim=True)).double()
    hits = (above & inside).sum(1, keepdim=True) + left * _share(tied & inside, tied)
    return (hits / size)[:, 0]


def _pixels(
    masks: Bool[Tensor, "batch height width"], ignore: Bool[Tensor, "batch height width"] | None
) -> tuple[Bool[Tensor, "batch pixels"], Bool[Tensor, "batch pixels"]]:
    """Which pixels count, and which of them lie in the mask."""
    counted = torch.ones_like(masks) if ignore is None else ~ignore
    return counted.flatten(1), (masks & counted).flatten(1)


def _share(
    part: Bool[Tensor, "batch pixels"], whole: Bool[Tensor, "batch pixels"]
) -> Float[Tensor, "batch 1"]:
    return part.sum(1, keepdim=True).double() / whole.sum(1, keepdim=True)
