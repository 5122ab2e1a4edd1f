"""A rectangle on an image."""

from __future__ import annotations

from typing import NamedTuple


class Box(NamedTuple):
    """The part of an image that the model's input covers, in pixels of the image.

    It reaches past the image's borders where the preprocessing pads.
    """

    left: float
    top: float
    right: float
    bottom: float

    def visible(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The whole pixels inside an image of `size` (width, height): left, top, right, bottom."""
        width, height = size
        left = min(max(round(self.left), 0), width - 1)
        top = min(max(round(self.top), 0), height - 1)
        right = max(min(round(self.right), width), left + 1)
        bottom = max(min(round(self.bottom), height), top + 1)
        return left, top, right, bottom
