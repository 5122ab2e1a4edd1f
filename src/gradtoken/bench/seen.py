"""Masks as a model's input has them, and which objects are still there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from gradtoken.datasets.sample import Sample
from gradtoken.images.crop_box import Box


@dataclass(frozen=True, eq=False)
class Seen:
    """What is left of a sample's objects in the pixels of the model's input.

    Args:
        positions: those of which a pixel counts, as the sample numbers them.
        masks: their pixels that count; None where the data set has no masks.
        ignore: pixels that count for nothing; None if all count.
        skipped: (name, reason) of the others.
    """

    positions: tuple[int, ...]
    masks: Bool[Tensor, "objects height width"] | None
    ignore: Bool[Tensor, "height width"] | None
    skipped: tuple[tuple[str, str], ...]


def seen(sample: Sample, positions: Sequence[int], box: Box, size: tuple[int, int]) -> Seen:
    """A sample's masks in the pixels of a model's input.

    An object that the model's preprocessing cuts off, or whose pixels are all to be ignored, can be
    found by no map, so it is left out.

    Args:
        sample: with or without masks.
        positions: of the objects to look at.
        box: the part of the image that the input covers.
        size: (width, height) of the input in pixels.
    """
    ignore = None if sample.ignore is None else as_seen(sample.ignore, box, size)
    if sample.masks is None:
        return Seen((), None, ignore, ())
    kept: dict[int, Tensor] = {}
    skipped: list[tuple[str, str]] = []
    for i in positions:
        found = as_seen(sample.masks[i], box, size)
        counting = found if ignore is None else found & ~ignore
        if bool(counting.any()):
            kept[i] = counting
        else:
            outside = bool(sample.masks[i].any()) and not bool(found.any())
            skipped.append((sample.names[i] if sample.names else "object", _REASONS[outside]))
    masks = torch.stack(list(kept.values())) if kept else None
    return Seen(tuple(kept), masks, ignore, tuple(skipped))


_REASONS = {
    True: "it lies outside of the model's input",
    False: "all of its pixels are to be ignored",
}


def as_seen(
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], box: Box, size: tuple[int, int]
) -> Bool[Tensor, "height width"]:
    """A mask of the original as the model's input has it: nearest pixels, nothing outside."""
    picture = Image.fromarray(mask.astype(np.uint8))
    visible = picture.transform(size, Image.Transform.EXTENT, tuple(box), Image.Resampling.NEAREST)
    return torch.from_numpy(np.asarray(visible) > 0)
