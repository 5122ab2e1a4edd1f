"""Segmentation by a relevance map, as Chefer et al. (CVPR 2021) measure it.

A map is scaled to 0..1, and what is above its mean is foreground. Counts are kept per image, so
that a data set's metrics can be computed as they are defined: over all pixels of all images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradtoken.metrics.pixel_replacement import Maps, check_finite

Masks: TypeAlias = Bool[Tensor, "batch height width"]


@dataclass(frozen=True)
class Overlap:
    """Pixel counts of each image; the second axis is background and foreground.

    Args:
        correct: pixels that map and mask label alike.
        labelled: pixels that are not ignored.
        intersection: pixels that both map and mask label background (foreground).
        union: pixels that map or mask labels background (foreground).
    """

    correct: Float[Tensor, " batch"]
    labelled: Float[Tensor, " batch"]
    intersection: Float[Tensor, "batch 2"]
    union: Float[Tensor, "batch 2"]

    def pixel_accuracy(self) -> Float[Tensor, ""]:
        """Of the data set: sum of correct / sum of labelled."""
        return self.correct.sum() / self.labelled.sum()

    def mean_iou(self) -> Float[Tensor, ""]:
        """Of the data set: the mean over background and foreground of sum / sum."""
        return (self.intersection.sum(0) / self.union.sum(0)).mean()

    def pixel_accuracies(self) -> Float[Tensor, " batch"]:
        """Of each image; NaN where no pixel counts."""
        return self.correct / self.labelled

    def mean_ious(self) -> Float[Tensor, " batch"]:
        """Of each image; a side with no pixels in either map or mask is left out."""
        return torch.nanmean(self.intersection / self.union, dim=1)


def min_max(maps: Maps) -> Maps:
    """Each map scaled to 0..1; a constant map becomes 0.

    Raises:
        MethodError: NaN or infinite relevance.
    """
    check_finite(maps)
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)


def overlap(maps: Maps, masks: Masks, ignore: Masks | None = None) -> Overlap:
    """Counts of a map's foreground (above its mean) against a mask, without ignored pixels.

    Ignored pixels are part of the map, so its range and mean include them.

    Raises:
        MethodError: NaN or infinite relevance.
    """
    scaled = min_max(maps)
    foreground = scaled > scaled.mean(dim=(1, 2), keepdim=True)
    counts = torch.ones_like(masks) if ignore is None else ~ignore
    sides = [(~foreground & counts, ~masks & counts), (foreground & counts, masks & counts)]
    both = torch.stack([_pixels(predicted & truth) for predicted, truth in sides], dim=1)
    either = torch.stack([_pixels(predicted | truth) for predicted, truth in sides], dim=1)
    return Overlap(both.sum(1), _pixels(counts), both, either)


def average_precision(
    maps: Maps, masks: Masks, ignore: Masks | None = None
) -> Float[Tensor, " batch"]:
    """AP of [1 - R, R] over all pixels against [background, foreground], R scaled to 0..1.

    The mean over a data set is its mAP. NaN where no pixel counts. Needs the extra `bench`
    (scikit-learn).

    Raises:
        MethodError: NaN or infinite relevance.
    """
    from sklearn.metrics import average_precision_score

    values = []
    for b, scaled in enumerate(min_max(maps)):
        counts = torch.ones_like(masks[b]) if ignore is None else ~ignore[b]
        relevance, truth = scaled[counts], masks[b][counts]
        scores = torch.cat([1 - relevance, relevance]).cpu().numpy()
        sides = torch.cat([~truth, truth]).cpu().numpy()
        values.append(float(average_precision_score(sides, scores)) if len(sides) else torch.nan)
    return torch.tensor(values, dtype=torch.float64)


def _pixels(masks: Masks) -> Float[Tensor, " batch"]:
    return masks.sum(dim=(1, 2)).double()
