"""Models of other than three channels: their inputs from images and from arrays (H, W, C)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gradtoken.errors import ImageError, ModelError
from gradtoken.images.load_image import MAX_PIXELS

IMAGE_CHANNELS = (1, 3)
"""Numbers of channels of image files: grey and RGB."""

_MAXIMA = {np.dtype(np.bool_): 1, np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
"""The value that is scaled to 1, by integer type."""


def as_channels(array: np.ndarray[Any, Any], channels: int) -> Float[Tensor, "channels h w"]:
    """An array (H, W, C) as float32 (C, H, W).

    bool, uint8 and uint16 are scaled to 0..1; floats stay as they are, in any unit.

    Raises:
        ImageError: another shape, number of channels or type, or NaN or infinite values.
    """
    array = np.asarray(array)
    if array.ndim != 3 or array.shape[-1] != channels or 0 in array.shape:
        raise ImageError(
            f"an array of shape {tuple(array.shape)} is no image of this model, which takes "
            f"{channels} channels; give (H, W, {channels}), or a tensor (B, {channels}, H, W)."
        )
    values: np.ndarray[Any, Any]
    height, width = array.shape[:2]
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"the array has {width}x{height} pixels, above the limit of {MAX_PIXELS:,}; make it "
            "smaller first."
        )
    if np.issubdtype(array.dtype, np.floating):
        values = array.astype(np.float32)
    elif array.dtype in _MAXIMA:
        values = array.astype(np.float32) / np.float32(_MAXIMA[array.dtype])
    else:
        raise ImageError(
            f"an array of {array.dtype} is no image; use uint8, uint16 or floats (in the unit that "
            "the preprocessing takes)."
        )
    if not np.isfinite(values).all():
        raise ImageError("the array holds NaN or infinite values; clean it first.")
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


@dataclass(frozen=True)
class Grey:
    """A transform for RGB images, for a model of one channel.

    The image is converted to grey, goes through the transform, and the three equal channels become
    one, normalised with the mean of the transform's means and of its standard deviations.
    """

    transform: Callable[[Image.Image], Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Image.Image) -> Float[Tensor, "1 h w"]:
        normalised = self.transform(image.convert("L").convert("RGB"))
        mean, std = (torch.tensor(v).to(normalised).view(-1, 1, 1) for v in (self.mean, self.std))
        grey = (normalised * std + mean).mean(0, keepdim=True)
        return (grey - mean.mean()) / std.mean()


@dataclass(frozen=True)
class TensorsOnly:
    """The place of an unknown transform: it raises `ModelError` for anything but tensors.

    Args:
        library: the library's own transform, for three channels; only the size of its output is
            used.
        channels: C, the number of channels that the model takes.
    """

    library: Callable[[Image.Image], Tensor]
    channels: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        height, width = self.library(Image.new("RGB", (256, 256))).shape[-2:]
        return height, width

    def __call__(self, image: Any) -> NoReturn:
        raise ModelError(
            f"how {self.channels} channels are resized and normalised for this model is not known; "
            f"give preprocessed tensors (B, {self.channels}, H, W), or pass "
            f"wrap(…, preprocess=Preprocess(transform, mean, std, channels={self.channels}))."
        )
