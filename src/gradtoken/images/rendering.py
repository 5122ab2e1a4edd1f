"""Showing an image of any number of channels as RGB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gradtoken.errors import ModelError

Rendering: TypeAlias = Sequence[int] | Callable[[Float[Tensor, "channels h w"]], Image.Image]
"""The channels shown as red, green and blue, or one as grey; or a function to an RGB image."""


def check_rendering(rendering: Any, channels: int) -> None:
    """Check a rendering for a number of channels.

    Raises:
        ModelError: it is neither a function nor indices of one or three existing channels.
    """
    if rendering is None or callable(rendering):
        return
    whole = isinstance(rendering, (tuple, list)) and all(type(index) is int for index in rendering)
    if not whole or len(rendering) not in (1, 3) or not 0 <= min(rendering) <= max(rendering):
        raise ModelError(
            f"rendering={rendering!r} shows no image; give the indices of three channels, as in "
            "(3, 2, 1), of one, or a function from the channels (C, H, W) to a PIL image."
        )
    if max(rendering) >= channels:
        raise ModelError(
            f"rendering={rendering!r} shows channel {max(rendering)}, and there are {channels}, 0 "
            f"to {channels - 1}."
        )


def render(values: Float[Tensor, "channels h w"], rendering: Rendering | None) -> Image.Image:
    """Channels, with the normalisation undone, as an RGB image.

    Without a rendering, one channel is shown as grey, two as the grey of their mean, of more the
    first three as red, green and blue. Values of one or three channels
    are clipped to 0 to 1. Values of other numbers of channels, if any shown one is outside 0 to 1,
    are scaled to it by the lowest and the highest shown.

    Raises:
        ModelError: if a function does not return an image of the channels' size.
    """
    height, width = values.shape[-2:]
    if callable(rendering):
        image = rendering(values)
        if not isinstance(image, Image.Image) or image.size != (width, height):
            got = image.size if isinstance(image, Image.Image) else type(image).__name__
            raise ModelError(
                f"the rendering must return a PIL image of {width}x{height} pixels, it returned "
                f"{got}."
            )
        return image.convert("RGB")
    shown = _select(values.detach().float().cpu(), rendering)
    if len(values) not in (1, 3):
        low, high = float(shown.min()), float(shown.max())
        if (low < 0 or high > 1) and high > low:
            shown = (shown - low) / (high - low)
    pixels = (shown.clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _select(
    values: Float[Tensor, "channels h w"], rendering: Sequence[int] | None
) -> Float[Tensor, "shown h w"]:
    if rendering is not None:
        return values[list(rendering)]
    return values.mean(0, keepdim=True) if len(values) < 3 else values[:3]
