"""From an image to the model's input, and the box of the image that it covers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gradtoken.errors import ImageError, ModelError
from gradtoken.images.box import Box
from gradtoken.images.channels import IMAGE_CHANNELS, Grey, TensorsOnly
from gradtoken.images.crop_box import find_crop_box
from gradtoken.images.load_image import MAX_PIXELS
from gradtoken.images.rendering import Rendering, check_rendering, render

MAX_ASPECT = 1000
"""Resizing the short side of a longer strip than this would need an enormous image."""

_NOISE_SIDE = 256


@dataclass(frozen=True)
class Preprocess:
    """A model's preprocessing together with its geometry.

    Args:
        transform: any deterministic resize, crop, squash or pad to a normalised tensor (C, H, W):
            of a PIL image (RGB), or, where the model takes another number of channels than one or
            three, of a float tensor (C, H, W) that an array (H, W, C) becomes. For one channel, a
            transform that makes three of an RGB image is given a grey one (mode L).
        mean: per channel, or one for all, what the transform subtracts; needed to show
            preprocessed tensors.
        std: per channel, or one for all, what the transform divides by.
        geometry: the box of an original of a size (width, height) that the transform keeps, where
            it is known; None measures it by running the transform.
        channels: C, how many channels the transform returns; None is as many as the means, or as
            the model takes.
        rendering: how images are shown: the indices of the channels for red, green and blue, of
            one for grey, or a function from the channels (C, H, W), normalisation undone, to a PIL
            image. None shows one channel as grey, two as their mean, and of more the first three.

    Raises:
        ModelError: means, standard deviations or a rendering of another number of channels.
    """

    transform: Callable[[Any], Tensor]
    mean: Sequence[float] = (0.5,)
    std: Sequence[float] = (0.5,)
    geometry: Callable[[tuple[int, int]], Box] | None = None
    channels: int | None = None
    rendering: Rendering | None = None
    _box: Callable[[tuple[int, int]], Box] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        mean, std, channels = _normalisation(self.mean, self.std, self.channels)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)
        object.__setattr__(self, "channels", channels)
        check_rendering(self.rendering, self.depth)
        find = self.geometry or partial(find_crop_box, self.transform, channels=self.depth)
        object.__setattr__(self, "_box", lru_cache(maxsize=256)(find))

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (self.transform, self.mean, self.std, self.geometry, self.channels, self.rendering)
        return Preprocess, fields

    @property
    def depth(self) -> int:
        """C, the number of channels: `channels`, or three where that is None."""
        return 3 if self.channels is None else self.channels

    @property
    def takes_images(self) -> bool:
        """Whether it takes files and PIL images, which have one or three channels."""
        return self.depth in IMAGE_CHANNELS

    def __call__(self, image: Any) -> Float[Tensor, "channels height width"]:
        """The model's input for one image.

        Args:
            image: a PIL image (RGB), or, for other than one or three channels, a float tensor
                (C, H, W) made of an array.

        Raises:
            ImageError: it is more than `MAX_ASPECT` times longer than wide, or has another number
                of channels than the model takes.
            ModelError: if the transform does not return C channels.
        """
        width, height = self._size(image)
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise ImageError(
                f"an image of {width}x{height} pixels is too elongated to resize for a model "
                f"(over {MAX_ASPECT}:1); crop it first."
            )
        out: Any = self.transform(image)
        if self.depth == 1 and isinstance(out, Tensor) and out.ndim == 3 and len(out) == 3:
            out = self.transform(image.convert("L"))
        if not isinstance(out, Tensor) or out.ndim != 3 or len(out) != self.depth:
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(
                f"the preprocessing must return a tensor of shape ({self.depth}, H, W), it "
                f"returned {shape}."
            )
        return out

    def _size(self, image: Any) -> tuple[int, int]:
        """Width and height of an image that has the channels the model takes."""
        if isinstance(image, Image.Image) and self.takes_images:
            return image.size
        if isinstance(image, Tensor) and not self.takes_images and len(image) == self.depth:
            return image.shape[-1], image.shape[-2]
        got = len(image) if isinstance(image, Tensor) else 3
        raise ImageError(
            f"the model takes {self.depth} channels, and this image has {got}; give an array "
            f"(H, W, {self.depth}) or a preprocessed tensor (B, {self.depth}, H, W)."
        )

    def box(self, size: tuple[int, int]) -> Box:
        """The box of an original of `size` (width, height) that the model's input covers."""
        return self._box(size)

    def to_image(self, tensor: Float[Tensor, "channels height width"]) -> Image.Image:
        """A preprocessed tensor (C, H, W) as an RGB image, normalisation undone."""
        values = tensor.detach().float().cpu()
        mean, std = (torch.tensor(v).to(values).view(-1, 1, 1) for v in (self.mean, self.std))
        return render(values * std + mean, self.rendering)

    def picture(self, tensor: Float[Tensor, "channels height width"]) -> Image.Image:
        """Deprecated name of `to_image`."""
        warnings.warn(
            "Preprocess.picture is deprecated; use Preprocess.to_image.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.to_image(tensor)

    def sample(self, seed: int = 0) -> Float[Tensor, "channels height width"]:
        """A model's input (C, H, W) made of seeded noise, to run the model on."""
        rng = np.random.default_rng(seed)
        if isinstance(self.transform, TensorsOnly):
            shape = (self.depth, *self.transform.size)
            return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        if self.takes_images:
            pixels = rng.integers(0, 256, (_NOISE_SIDE, _NOISE_SIDE, 3), dtype=np.uint8)
            return self(Image.fromarray(pixels))
        values = rng.random((self.depth, _NOISE_SIDE, _NOISE_SIDE), dtype=np.float32)
        return self(torch.from_numpy(values))

    def for_model(self, channels: int) -> Preprocess:
        """A user's preprocessing, for a model of so many channels unless it has its own number."""
        return self if self.channels is not None else replace(self, channels=channels)

    def of_library(self, channels: int) -> Preprocess:
        """A library's preprocessing for images, for a model of so many channels."""
        if channels == self.depth:
            return replace(self, channels=channels)
        if channels == 1:
            grey = Grey(self.transform, tuple(self.mean), tuple(self.std))
            mean, std = (sum(v) / len(v) for v in (self.mean, self.std))
            return Preprocess(grey, (mean,), (std,), self.geometry, channels=1)
        return Preprocess(TensorsOnly(self.transform, channels), channels=channels)


def _normalisation(
    mean: Any, std: Any, channels: int | None
) -> tuple[tuple[float, ...], tuple[float, ...], int | None]:
    """Means and standard deviations for each channel, and their number; None if unknown."""
    mean, std = tuple(mean), tuple(std)
    counts = {len(values) for values in (mean, std) if len(values) != 1}
    counts |= set() if channels is None else {channels}
    if len(counts) > 1 or not mean or not std or (channels is not None and channels < 1):
        raise ModelError(
            f"the preprocessing has {len(mean)} means, {len(std)} standard deviations and "
            f"channels={channels}; give one for all channels, or one for each."
        )
    if not counts:
        return mean, std, None
    count = counts.pop()
    mean, std = (v * count if len(v) == 1 else v for v in (mean, std))
    return mean, std, count


def check_tensor(images: Tensor, channels: int = 3) -> Float[Tensor, "batch channels height width"]:
    """Check a preprocessed tensor and return it as a batch.

    Args:
        images: (B, C, H, W) or (C, H, W).
        channels: C, the number that the model takes.

    Raises:
        ImageError: wrong number of dimensions or channels, too many pixels, empty, integer, NaN or
            infinite, or without plain numbers in memory (sparse, nested, quantised, on "meta").
    """
    plain = images.layout == torch.strided and not images.is_nested and not images.is_quantized
    if not plain or images.is_meta:
        raise ImageError(
            "a sparse, nested, quantised or meta tensor is no preprocessed batch; give a plain "
            f"tensor (B, {channels}, H, W)."
        )
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[1] != channels:
        got = f", and this has {images.shape[1]}" if images.ndim == 4 else ""
        raise ImageError(
            f"a tensor of shape {tuple(images.shape)} is not a preprocessed batch of a model that "
            f"takes {channels} channels{got}; give (B, {channels}, H, W) or ({channels}, H, W)."
        )
    if 0 in images.shape:
        raise ImageError(
            f"the batch is empty (shape {tuple(images.shape)}); give at least one image."
        )
    height, width = images.shape[-2:]
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"the tensor's images have {width}x{height} pixels, above the limit of "
            f"{MAX_PIXELS:,}; make them smaller first."
        )
    if not images.is_floating_point() or images.dtype.itemsize < 2:
        raise ImageError(
            f"a tensor of {images.dtype} is not preprocessed; pass images as PIL images or uint8 "
            f"arrays (H, W, {channels}), or apply the model's preprocessing first."
        )
    if not bool(torch.isfinite(images).all()):
        raise ImageError("the tensor holds NaN or infinite values; clean it first.")
    return images
