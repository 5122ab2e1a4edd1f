"""Masks on the pixels of a model's input, and which objects are visible there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from gradtoken.datasets.sample import Sample
from gradtoken.images.box import Box


@dataclass(frozen=True, eq=False)
class VisibleObjects:
    """The objects of a sample that have pixels in the model's input.

    Args:
        positions: their positions in the sample.
        masks: their pixels without the ignored ones; None where the data set has no masks.
        ignore: pixels to ignore; None if all count.
        skipped: (name, reason) of the other objects.
    """

    positions: tuple[int, ...]
    masks: Bool[Tensor, "objects height width"] | None
    ignore: Bool[Tensor, "height width"] | None
    skipped: tuple[tuple[str, str], ...]


def visible_objects(
    sample: Sample, positions: Sequence[int], box: Box, size: tuple[int, int]
) -> VisibleObjects:
    """A sample's masks on the pixels of a model's input.

    No map can point at an object that the model's preprocessing cuts off or whose pixels are all
    ignored, so such an object is skipped.

    Args:
        sample: with or without masks.
        positions: of the objects to look for.
        box: the part of the image that the input covers.
        size: (width, height) of the input in pixels.
    """
    ignore = None if sample.ignore is None else mask_on_input(sample.ignore, box, size)
    if sample.masks is None:
        return VisibleObjects((), None, ignore, ())
    visible: dict[int, Tensor] = {}
    skipped: list[tuple[str, str]] = []
    for i in positions:
        mask = mask_on_input(sample.masks[i], box, size)
        counted = mask if ignore is None else mask & ~ignore
        if bool(counted.any()):
            visible[i] = counted
        else:
            outside = bool(sample.masks[i].any()) and not bool(mask.any())
            skipped.append((sample.names[i] if sample.names else "object", _REASONS[outside]))
    masks = torch.stack(list(visible.values())) if visible else None
    return VisibleObjects(tuple(visible), masks, ignore, tuple(skipped))


_REASONS = {
    True: "it lies outside of the model's input",
    False: "all of its pixels are to be ignored",
}


def mask_on_input(
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], box: Box, size: tuple[int, int]
) -> Bool[Tensor, "height width"]:
    """A mask of the original image on the model's input.

    Args:
        mask: (height, width) of the original image.
        box: the part of the image that the input covers; outside of the image the mask is False.
        size: (width, height) of the input in pixels, to which the mask is resampled (nearest).
    """
    image = Image.fromarray(mask.astype(np.uint8))
    visible = image.transform(size, Image.Transform.EXTENT, tuple(box), Image.Resampling.NEAREST)
    return torch.from_numpy(np.asarray(visible) > 0)
