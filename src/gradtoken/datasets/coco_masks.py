"""COCO's masks, checked before they are drawn.

pycocotools draws in C and does not check its input: with run lengths that do not fill the image, or
polygons far outside it, it would write past its memory. Masks that pass these checks fit the image.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Bool

_MARGIN = 1.0
"""How far a polygon may lie outside of its image, relative to the image's longer side."""


def draw(segmentation: Any, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """The mask of a segmentation.

    Args:
        segmentation: of an annotation: a list of polygons, or run lengths (a list or compressed).
        size: (height, width) of its image.

    Raises:
        ValueError: if it is none of these, or does not fit the image.
    """
    from pycocotools import mask as drawing

    height, width = size
    if isinstance(segmentation, list):
        parts = drawing.frPyObjects(_polygons(segmentation, size), height, width)
        mask = drawing.decode(drawing.merge(parts))
    else:
        runs = {"size": [height, width], "counts": _runs(segmentation, size)}
        mask = drawing.decode(drawing.frPyObjects(runs, height, width))
    return np.asarray(mask).astype(bool)


def _polygons(polygons: list[Any], size: tuple[int, int]) -> list[list[float]]:
    reach = _MARGIN * max(size)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon is no list of three or more points")
        for axis, side in ((0, size[1]), (1, size[0])):
            for number in polygon[axis::2]:
                plain = type(number) in (int, float) and math.isfinite(number)
                if not plain or not -reach <= number <= side + reach:
                    raise ValueError(f"a polygon has the corner {number!r}, outside of the image")
    if not polygons:
        raise ValueError("there is no polygon")
    return polygons


def _runs(segmentation: Any, size: tuple[int, int]) -> list[int]:
    if not isinstance(segmentation, dict) or list(segmentation.get("size", ())) != list(size):
        raise ValueError("run lengths are not for the size of the image")
    counts = segmentation.get("counts")
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise ValueError("run lengths are no list of whole numbers")
    if sum(runs) != size[0] * size[1]:
        raise ValueError(f"run lengths cover {sum(runs)} pixels of {size[0] * size[1]}")
    return runs


def _unpacked(text: str) -> list[int]:
    """Decode COCO's compressed run lengths.

    Each character holds five bits, counted from "0"; a run is a signed number, its lowest bits
    first. From the fourth run on, numbers are differences to the last but one.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("compressed run lengths hold letters that they do not have")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (1 << shift) if bits & 0x10 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("compressed run lengths end within a number")
    return runs
