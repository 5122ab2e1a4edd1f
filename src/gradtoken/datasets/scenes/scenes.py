"""Endless scenes of one to five drawn objects with exact masks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from gradtoken.datasets.scenes.backgrounds import background
from gradtoken.datasets.scenes.canvas import Canvas
from gradtoken.datasets.scenes.sprites import MONOCHROME, concepts, load

Array = np.ndarray

SPLITS = ("train", "test")
MAX_OBJECTS = 5
MIN_SIZE = 32
# Largest extent of an object relative to the image, by the number of objects.
LARGEST = {1: 0.6, 2: 0.55, 3: 0.48, 4: 0.42, 5: 0.38}
SMALLEST = 0.28


@dataclass(frozen=True)
class Scene:
    """An image and its objects, in drawing order.

    ``image`` is RGB; ``labels`` are class ids and ``names`` their names; ``masks`` is bool
    (n, H, W): the visible pixels of every object, so no two masks overlap.
    """

    image: Image.Image
    labels: tuple[int, ...]
    names: tuple[str, ...]
    masks: Array


class Scenes:
    """An endless, reproducible sequence of scenes: ``scenes[i]`` for any ``i >= 0``.

    A scene depends on nothing but the arguments and ``i``. ``split="test"`` draws its objects in
    one style which ``split="train"``, made of nine other styles and strongly restyled, never
    shows. ``objects`` is a number of objects or a range ``(low, high)``, all of different classes.
    ``extent`` is the range of the longer side of an object relative to ``size``; by default it
    shrinks as objects get more.
    """

    def __init__(
        self,
        split: str = "test",
        size: int = 112,
        objects: int | tuple[int, int] = (1, 3),
        seed: int = 0,
        *,
        extent: tuple[float, float] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(
                f"split={split!r} is unknown because scenes come in two splits; "
                "use 'train' or 'test'."
            )
        if not _is_int(size) or size < MIN_SIZE:
            raise ValueError(
                f"size={size!r} is not valid because objects must stay recognisable; "
                f"use a whole number of at least {MIN_SIZE} pixels."
            )
        if not _is_int(seed) or seed < 0:
            raise ValueError(
                f"seed={seed!r} is not valid because the random generator takes whole numbers from "
                "0 up; use one such as 0."
            )
        if extent is not None and not _is_extent(extent):
            raise ValueError(
                f"extent={extent!r} is not valid because an object must be visible and must fit "
                "into the image; use a range within 0.1 to 1 such as (0.3, 0.5)."
            )
        self.split = split
        self.size = size
        self.objects = _object_range(objects)
        self.seed = seed
        self.extent = extent
        self._sprites = load(split)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the position of a name is its class id."""
        return concepts()

    def __iter__(self) -> Iterator[Scene]:
        index = 0
        while True:
            yield self[index]
            index += 1

    def __getitem__(self, index: int) -> Scene:
        if not _is_int(index) or index < 0:
            raise IndexError(
                f"index {index!r} is not valid because the scenes are an endless sequence counted "
                "from 0; use a whole number of at least 0."
            )
        rng = np.random.default_rng([self.seed, zlib.crc32(self.split.encode()), index])
        count = int(rng.integers(self.objects[0], self.objects[1] + 1))
        labels = rng.choice(len(self._sprites), count, replace=False).tolist()
        canvas = Canvas(background(rng, self.size), augment=self.split == "train")
        low, high = self.extent or (SMALLEST, LARGEST[count])
        for label in labels:
            choices = self._sprites[label]
            sprite = choices[int(rng.integers(len(choices)))]
            if sprite.style in MONOCHROME and rng.random() < 0.75:
                sprite = choices[int(rng.integers(len(choices)))]
            canvas.add(rng, sprite, rng.uniform(low, high) * self.size)
        classes = self.classes
        return Scene(
            Image.fromarray(canvas.pixels),
            tuple(labels),
            tuple(classes[label] for label in labels),
            canvas.masks(),
        )


def _object_range(objects: int | tuple[int, int]) -> tuple[int, int]:
    """``objects`` as (low, high), or ValueError."""
    pair: Any = (objects, objects) if _is_int(objects) else objects
    valid = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(map(_is_int, pair))
    if not valid or not 1 <= pair[0] <= pair[1] <= MAX_OBJECTS:
        raise ValueError(
            f"objects={objects!r} is not valid because a scene holds 1 to {MAX_OBJECTS} objects; "
            "use a whole number or a range (low, high) such as (1, 3)."
        )
    return int(pair[0]), int(pair[1])


def _is_extent(extent: object) -> bool:
    """Whether ``extent`` is a usable (low, high)."""
    if not isinstance(extent, (tuple, list)) or len(extent) != 2:
        return False
    return bool(0.1 <= extent[0] <= extent[1] <= 1)


def _is_int(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
