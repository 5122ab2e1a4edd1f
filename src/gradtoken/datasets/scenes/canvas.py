"""A canvas on which sprites are drawn so that all of them stay visible."""

from __future__ import annotations

import numpy as np

from gradtoken.datasets.scenes.augment import restyle
from gradtoken.datasets.scenes.placing import draw
from gradtoken.datasets.scenes.sprites import Sprite

Array = np.ndarray

VISIBLE = 0.75
"""Least share of an object that stays visible."""
FAINT = 32.0
"""Least mean difference, of 255, between an object and what is behind it."""
BEND = 0.035
"""Distortion of training sprites, as ``bend`` of ``draw``."""
_FAINT_TRIES = 4
_PLACE_TRIES = 10
_SHRINK = 0.85


class Canvas:
    """An image, the object that each of its pixels shows, and the objects' full areas.

    Args:
        background: uint8 (size, size, 3); it is drawn over.
        augment: bend and restyle sprites, as for training scenes.

    Attributes:
        pixels: uint8 (size, size, 3).
        owner: int8 (size, size), the number of the object that a pixel shows, -1 for none.
        areas: the number of pixels of each object, also of those that others hide.
    """

    def __init__(self, background: Array, *, augment: bool) -> None:
        self.pixels = background
        self.owner: Array = np.full(background.shape[:2], -1, np.int8)
        self.areas: list[int] = []
        self._augment = augment

    def add(self, rng: np.random.Generator, sprite: Sprite, extent: float) -> None:
        """Draw ``sprite``, ``extent`` pixels long, where it hides little of the other objects.

        Where there is no such place the sprite shrinks, so the search ends. A sprite that hardly
        differs from what is behind it gets a few more tries.
        """
        faint_tries = _FAINT_TRIES
        while True:
            drawn, solid = draw(rng, sprite, extent, BEND if self._augment else 0.0)
            if self._augment:
                drawn = restyle(rng, drawn, solid)
            shape = drawn[..., 3] > 127
            place = self._place(rng, shape)
            if place is None:
                extent *= _SHRINK
                continue
            top, left = place
            window = (slice(top, top + shape.shape[0]), slice(left, left + shape.shape[1]))
            under = self.pixels[window].astype(np.float32)
            change = drawn[..., :3] - under
            if faint_tries == 0 or np.abs(change[shape]).mean() >= FAINT:
                break
            faint_tries -= 1
        alpha = drawn[..., 3:].astype(np.float32) / 255
        self.pixels[window] = (under + alpha * change + 0.5).astype(np.uint8)
        self.owner[window][shape] = len(self.areas)
        self.areas.append(int(shape.sum()))

    def masks(self) -> Array:
        """The visible pixels of every object, bool (objects, size, size)."""
        return self.owner == np.arange(len(self.areas), dtype=np.int8)[:, None, None]

    def _place(self, rng: np.random.Generator, shape: Array) -> tuple[int, int] | None:
        """Top and left of a place for ``shape`` (h, w) that leaves the others visible, if any."""
        owner, areas = self.owner, self.areas
        height, width = shape.shape
        visible = np.bincount(owner[owner >= 0], minlength=len(areas))
        for _ in range(_PLACE_TRIES):
            top = int(rng.integers(owner.shape[0] - height + 1))
            left = int(rng.integers(owner.shape[1] - width + 1))
            if not areas:
                return top, left
            hidden = owner[top : top + height, left : left + width][shape]
            remaining = visible - np.bincount(hidden[hidden >= 0], minlength=len(areas))
            if (remaining >= VISIBLE * np.array(areas)).all():
                return top, left
        return None
