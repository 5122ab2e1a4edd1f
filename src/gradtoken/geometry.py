"""Where on a picture the model looked: the box of the original that its input covers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from gradtoken.errors import ImageError


class Box(NamedTuple):
    """The part of the original picture that the model's input covers, in original pixels.

    It reaches past the picture's borders where the preprocessing pads.
    """

    left: float
    top: float
    right: float
    bottom: float

    def visible(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Whole pixels (left, top, right, bottom) of a picture of `size` (width, height) inside."""
        width, height = size
        left = min(max(round(self.left), 0), width - 1)
        top = min(max(round(self.top), 0), height - 1)
        right = max(min(round(self.right), width), left + 1)
        bottom = max(min(round(self.bottom), height), top + 1)
        return left, top, right, bottom


def lay_out(tokens: Tensor, box: Box, size: tuple[int, int], *, mode: str = "bilinear") -> Tensor:
    """Put token maps on the original picture's pixels.

    Args:
        tokens: (K, h, w) token relevance of one picture.
        box: what of the original the token grid covers.
        size: (width, height) of the original in pixels.
        mode: "bilinear" or "nearest" between token centres.

    Returns:
        (K, height, width); pixels the model never saw are 0.
    """
    width, height = size
    left, top, right, bottom = box.visible(size)
    xs = torch.arange(left, right, device=tokens.device, dtype=torch.float64) + 0.5
    ys = torch.arange(top, bottom, device=tokens.device, dtype=torch.float64) + 0.5
    xs = 2 * (xs - box.left) / (box.right - box.left) - 1
    ys = 2 * (ys - box.top) / (box.bottom - box.top) - 1
    grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1).to(tokens.dtype)
    inside = F.grid_sample(
        tokens[None], grid[None], mode=mode, padding_mode="border", align_corners=False
    )[0]
    if (left, top, right, bottom) == (0, 0, width, height):
        return inside
    out = tokens.new_zeros(tokens.shape[0], height, width)
    out[:, top:bottom, left:right] = inside
    return out


def probe(transform: Callable[[Image.Image], Any], size: tuple[int, int]) -> Box:
    """Find the box a transform keeps of a picture, by sending ramps of grey through it.

    Works for any deterministic resize, crop, squash or pad, whatever library it is from: a black
    and a white picture tell its normalisation, a ramp along an axis tells where each row or column
    of its output comes from. A second, steeper ramp over the part found sharpens the answer.

    Args:
        transform: PIL image to tensor (3, H, W).
        size: (width, height) of the pictures it will be used on.

    Raises:
        ImageError: if the output is no shifted and scaled copy of the input (random or flipped).
    """
    width, height = size
    black = _grey(transform, np.zeros((height, width)))
    span = _grey(transform, np.full((height, width), 1.0)) - black
    inside = np.abs(span) > 0.5 * np.abs(span).max()
    scale = np.where(inside, span, 1)
    ends = []
    for axis, length in ((1, width), (0, height)):
        low, high = 0.0, float(length)
        for _ in range(3):
            centres = np.arange(length) + 0.5
            ramp = ((centres - low) / (high - low)).clip(0, 1)
            picture = np.broadcast_to(ramp if axis == 1 else ramp[:, None], (height, width))
            seen = np.where(inside, (_grey(transform, picture) - black) / scale, 0)
            counts = inside.sum(axis=1 - axis)
            profile = seen.sum(axis=1 - axis) / counts.clip(min=1)
            found = _ends(np.where(counts > 0, profile, np.nan), low, high, length)
            margin = 0.05 * (found[1] - found[0]) + 1.0
            low, high = max(found[0] - margin, 0.0), min(found[1] + margin, float(length))
        ends.append(found)
    (left, right), (top, bottom) = ends
    return Box(left, top, right, bottom)


def _grey(transform: Callable[[Image.Image], Any], values: np.ndarray[Any, Any]) -> Any:
    grey = Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")
    return torch.as_tensor(transform(grey))[0].double().numpy()


def _ends(
    profile: np.ndarray[Any, Any], low: float, high: float, length: int
) -> tuple[float, float]:
    """Original coordinates of the first and last edge of an output axis, from its ramp profile."""
    if length == 1:
        return 0.0, 1.0
    index = np.arange(len(profile)) + 0.5
    usable = np.isfinite(profile) & (profile > 0.02) & (profile < 0.98)
    if usable.sum() < 2:
        return low, high
    slope, start = np.polyfit(index[usable], profile[usable], 1)
    residual = np.abs(profile[usable] - (slope * index[usable] + start)).max()
    if slope <= 0 or residual > 0.1:
        raise ImageError(
            "the preprocessing is not a fixed resize and crop (it flips, warps or is random), so "
            "maps cannot be put back on the picture; pass a deterministic one."
        )
    return (
        low + start * (high - low),
        low + (start + slope * len(profile)) * (high - low),
    )
