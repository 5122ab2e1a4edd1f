"""The part of an image that a preprocessing keeps, measured by running the preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from gradtoken.errors import ImageError
from gradtoken.images.box import Box
from gradtoken.images.channels import IMAGE_CHANNELS

Profile: TypeAlias = np.ndarray[Any, Any]

_NOT_FIXED = (
    "the preprocessing is not a fixed resize and crop (it is random, flips or turns images), so "
    "maps cannot be put back on the image; pass the deterministic one used for evaluation."
)
_PASSES = 8
_TOLERANCE = 0.06
"""How far the response to a ramp may be from straight, relative to black and white."""


def find_crop_box(
    transform: Callable[[Any], Any], size: tuple[int, int], *, channels: int = 3
) -> Box:
    """Find the box of an image that a transform keeps, by running it on grey images.

    Works for any deterministic resize, crop, squash or pad of any library. Its outputs for a black
    and a white image give its normalisation; its outputs for a ramp along an axis give the origin
    of each row or column. Steeper ramps over the part located so far make the result more precise.

    Args:
        transform: PIL image (of other than one or three channels, tensor) to tensor (C, H, W).
        size: (width, height) of the images it is used on.
        channels: C.

    Raises:
        ImageError: if the output is no shifted and scaled copy of the input: random, flipped,
            turned, or the same whatever the input.
    """
    width, height = size
    respond = partial(_grey_response, transform, channels)
    noise = np.random.default_rng(0).random((height, width))
    first, second = (respond(noise) for _ in range(2))
    black = respond(np.zeros((height, width)))
    span = respond(np.ones((height, width))) - black
    inside = np.abs(span) > 0.5 * np.abs(span).max()
    if first.shape != second.shape or not np.array_equal(first, second) or not inside.any():
        raise ImageError(_NOT_FIXED)
    scale = np.where(inside, span, 1)

    def ramp_response(ramp: Profile, axis: int) -> np.ndarray[Any, Any]:
        image = np.broadcast_to(ramp if axis == 1 else ramp[:, None], (height, width))
        values = np.where(inside, (respond(image) - black) / scale, np.nan)
        return values if axis == 1 else values.T

    left, right = _find_ends(lambda ramp: ramp_response(ramp, 1), width)
    top, bottom = _find_ends(lambda ramp: ramp_response(ramp, 0), height)
    return Box(left, top, right, bottom)


def _find_ends(respond: Callable[[Profile], Profile], length: int) -> tuple[float, float]:
    """Original coordinates of the first and the last edge of an output axis.

    Args:
        respond: the transform's response to a ramp along the axis, (lines, places), NaN where it
            pads.
        length: of the axis in the original image.
    """
    if length == 1:
        return 0.0, 1.0
    low, high = 0.0, float(length)
    centres = np.arange(length) + 0.5
    for _ in range(_PASSES):
        ramp = ((centres - low) / (high - low)).clip(0, 1)
        values = respond(ramp)
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


def _grey_response(transform: Callable[[Any], Any], channels: int, values: Profile) -> Profile:
    """The first channel of a transform's output for a grey image with values in 0..1."""
    image: Any
    if channels in IMAGE_CHANNELS:
        image = Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")
    else:
        image = torch.from_numpy(np.array(values, np.float32)).expand(channels, -1, -1).clone()
    channel: Profile = torch.as_tensor(transform(image))[0].double().numpy()
    return channel
