"""Endless scenes of one to five drawn objects with exact masks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from gradtoken.datasets.scenes.augment import restyle
from gradtoken.datasets.scenes.backgrounds import background
from gradtoken.datasets.scenes.placing import draw
from gradtoken.datasets.scenes.sprites import MONOCHROME, Sprite, concepts, load

Array = np.ndarray

SPLITS = ("train", "test")
MAX_OBJECTS = 5
MIN_SIZE = 32
VISIBLE = 0.75
# Least mean difference, of 255, between an object and what is behind it.
FAINT = 32.0
BEND = 0.035
# Largest extent of an object relative to the picture, by the number of objects.
LARGEST = {1: 0.6, 2: 0.55, 3: 0.48, 4: 0.42, 5: 0.38}
SMALLEST = 0.28


@dataclass(frozen=True)
class Scene:
    """One picture and what is in it, in drawing order.

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
                f"size={size!r} is refused because objects must stay recognisable; "
                f"use a whole number of at least {MIN_SIZE} pixels."
            )
        if not _is_int(seed) or seed < 0:
            raise ValueError(
                f"seed={seed!r} is refused because the random generator takes whole numbers from "
                "0 up; use one such as 0."
            )
        if extent is not None and not _is_extent(extent):
            raise ValueError(
                f"extent={extent!r} is refused because an object must be seen and must fit into "
                "the picture; use a range within 0.1 to 1 such as (0.3, 0.5)."
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
                f"index {index!r} is refused because the scenes are an endless sequence counted "
                "from 0; use a whole number of at least 0."
            )
        rng = np.random.default_rng([self.seed, zlib.crc32(self.split.encode()), index])
        count = int(rng.integers(self.objects[0], self.objects[1] + 1))
        labels = rng.choice(len(self._sprites), count, replace=False).tolist()
        canvas = background(rng, self.size)
        owner = np.full((self.size, self.size), -1, np.int8)
        low, high = self.extent or (SMALLEST, LARGEST[count])
        areas: list[int] = []
        for label in labels:
            choices = self._sprites[label]
            sprite = choices[int(rng.integers(len(choices)))]
            if sprite.style in MONOCHROME and rng.random() < 0.75:
                sprite = choices[int(rng.integers(len(choices)))]
            self._add(rng, canvas, owner, areas, sprite, rng.uniform(low, high) * self.size)
        masks = owner == np.arange(count, dtype=np.int8)[:, None, None]
        names = self.classes
        return Scene(
            Image.fromarray(canvas), tuple(labels), tuple(names[label] for label in labels), masks
        )

    def _add(
        self,
        rng: np.random.Generator,
        canvas: Array,
        owner: Array,
        areas: list[int],
        sprite: Sprite,
        extent: float,
    ) -> None:
        """Draw ``sprite`` into ``canvas`` (H, W, 3) and ``owner`` (H, W) where it hides little.

        ``areas`` holds the full area of the objects so far and gets this one's. Where no free
        place is found the sprite shrinks, so the search ends. A sprite that hardly differs from
        what is behind it gets a few more tries.
        """
        train = self.split == "train"
        faint_tries = 4
        while True:
            picture, solid = draw(rng, sprite, extent, BEND if train else 0.0)
            if train:
                picture = restyle(rng, picture, solid)
            shape = picture[..., 3] > 127
            place = self._place(rng, owner, areas, shape)
            if place is None:
                extent *= 0.85
                continue
            top, left = place
            window = (slice(top, top + shape.shape[0]), slice(left, left + shape.shape[1]))
            under = canvas[window].astype(np.float32)
            change = picture[..., :3] - under
            if faint_tries == 0 or np.abs(change[shape]).mean() >= FAINT:
                break
            faint_tries -= 1
        alpha = picture[..., 3:].astype(np.float32) / 255
        canvas[window] = (under + alpha * change + 0.5).astype(np.uint8)
        owner[window][shape] = len(areas)
        areas.append(int(shape.sum()))

    def _place(
        self, rng: np.random.Generator, owner: Array, areas: list[int], shape: Array
    ) -> tuple[int, int] | None:
        """Top and left of a place for ``shape`` (h, w) that leaves the others visible, if any."""
        height, width = shape.shape
        visible = np.bincount(owner[owner >= 0], minlength=len(areas))
        for _ in range(10):
            top = int(rng.integers(self.size - height + 1))
            left = int(rng.integers(self.size - width + 1))
            if not areas:
                return top, left
            hidden = owner[top : top + height, left : left + width][shape]
            left_over = visible - np.bincount(hidden[hidden >= 0], minlength=len(areas))
            if (left_over >= VISIBLE * np.array(areas)).all():
                return top, left
        return None


def _object_range(objects: int | tuple[int, int]) -> tuple[int, int]:
    """``objects`` as (low, high), or ValueError."""
    pair: Any = (objects, objects) if _is_int(objects) else objects
    valid = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(map(_is_int, pair))
    if not valid or not 1 <= pair[0] <= pair[1] <= MAX_OBJECTS:
        raise ValueError(
            f"objects={objects!r} is refused because a scene holds 1 to {MAX_OBJECTS} objects; "
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
