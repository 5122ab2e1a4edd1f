"""Where on a picture the model looked: the box of the original that its input covers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from gradtoken.errors import ImageError
from gradtoken.images.channels import OF_IMAGES

Profile: TypeAlias = np.ndarray[Any, Any]


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


def probe(transform: Callable[[Any], Any], size: tuple[int, int], *, channels: int = 3) -> Box:
    """Find the box a transform keeps of a picture, by sending grey pictures through it.

    Works for any deterministic resize, crop, squash or pad, whatever library it is from: a black
    and a white picture tell its normalisation, a ramp along an axis tells where each row or column
    of its output comes from. Steeper ramps over the part found so far sharpen the answer.

    Args:
        transform: PIL image (of other than one or three channels, tensor) to tensor (C, H, W).
        size: (width, height) of the pictures it will be used on.
        channels: C.

    Raises:
        ImageError: if the output is no shifted and scaled copy of the input: random, flipped,
            turned, or the same whatever the input.
    """
    width, height = size
    seen_of = partial(_grey, transform, channels)
    noise = np.random.default_rng(0).random((height, width))
    first, second = (seen_of(noise) for _ in range(2))
    black = seen_of(np.zeros((height, width)))
    span = seen_of(np.ones((height, width))) - black
    inside = np.abs(span) > 0.5 * np.abs(span).max()
    if first.shape != second.shape or not np.array_equal(first, second) or not inside.any():
        raise ImageError(_NOT_FIXED)
    scale = np.where(inside, span, 1)

    def seen(ramp: Profile, axis: int) -> np.ndarray[Any, Any]:
        picture = np.broadcast_to(ramp if axis == 1 else ramp[:, None], (height, width))
        values = np.where(inside, (seen_of(picture) - black) / scale, np.nan)
        return values if axis == 1 else values.T

    left, right = _find_ends(lambda ramp: seen(ramp, 1), width)
    top, bottom = _find_ends(lambda ramp: seen(ramp, 0), height)
    return Box(left, top, right, bottom)


_NOT_FIXED = (
    "the preprocessing is not a fixed resize and crop (it is random, flips or turns pictures), so "
    "maps cannot be put back on the picture; pass the deterministic one used for evaluation."
)
_PASSES = 8
_TOLERANCE = 0.06
"""How far what is seen of a ramp may be from straight, relative to black and white."""


def _find_ends(seen: Callable[[Profile], Profile], length: int) -> tuple[float, float]:
    """Original coordinates of an output axis's first and last edge.

    `seen` gives what the transform makes of a ramp along the axis, (lines, places) with NaN where
    it pads. Each pass looks closer at the part of the original found by the last one.
    """
    if length == 1:
        return 0.0, 1.0
    low, high = 0.0, float(length)
    centres = np.arange(length) + 0.5
    for _ in range(_PASSES):
        ramp = ((centres - low) / (high - low)).clip(0, 1)
        values = seen(ramp)
        known = np.isfinite(values)
        counts = known.sum(axis=0)
        profile = np.where(known, values, 0).sum(axis=0) / counts.clip(min=1)
        usable = (counts > 0) & (profile > 0.02) & (profile < 0.98)
        rise = np.ptp(profile[usable]) if usable.sum() > 1 else 0.0
        if rise > 0.2:
            break
        middle = low + float(np.median(profile[counts > 0])) * (high - low)
        reach = max(0.05 * (high - low), 2.0)
        narrowed = (max(middle - reach, 0.0), min(middle + reach, float(length)))
        if narrowed == (low, high):
            break
        low, high = narrowed
    if rise <= 0:
        return low, high
    places = np.arange(len(profile)) + 0.5
    slope, start = np.polyfit(places[usable], profile[usable], 1)
    crooked = np.abs(profile[usable] - (slope * places[usable] + start)).max()
    spread = np.nanpercentile(np.abs(values - profile)[:, usable], 95)
    if slope <= 0 or crooked > _TOLERANCE or spread > _TOLERANCE:
        raise ImageError(_NOT_FIXED)
    return low + start * (high - low), low + (start + slope * len(profile)) * (high - low)


def _grey(transform: Callable[[Any], Any], channels: int, values: Profile) -> Profile:
    """What a transform makes of a grey image with values in 0..1, first channel."""
    given: Any
    if channels in OF_IMAGES:
        given = Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")
    else:
        given = torch.from_numpy(np.array(values, np.float32)).expand(channels, -1, -1).clone()
    channel: Profile = torch.as_tensor(transform(given))[0].double().numpy()
    return channel
