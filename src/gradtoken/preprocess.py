"""From a picture to the model's input, and back to where it lay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gradtoken.errors import ImageError, ModelError
from gradtoken.geometry import Box, probe
from gradtoken.images import MAX_PIXELS

MAX_ASPECT = 1000
"""Resizing the short side of a longer strip than this would need an enormous picture."""


@dataclass(frozen=True)
class Preprocess:
    """A model's preprocessing together with its geometry.

    Args:
        transform: PIL image (RGB) to a normalised tensor (3, H, W); any deterministic resize,
            crop, squash or pad.
        mean: per channel, what the transform subtracts; needed to show preprocessed tensors.
        std: per channel, what the transform divides by.
        geometry: the box of an original of a size (width, height) that the transform keeps, where
            it is known; otherwise it is found by probing the transform.
    """

    transform: Callable[[Image.Image], Tensor]
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    geometry: Callable[[tuple[int, int]], Box] | None = None
    _box: Callable[[tuple[int, int]], Box] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        find = self.geometry or partial(probe, self.transform)
        object.__setattr__(self, "_box", lru_cache(maxsize=256)(find))

    def __reduce__(self) -> tuple[Any, ...]:
        return Preprocess, (self.transform, self.mean, self.std, self.geometry)

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 height width"]:
        """The model's input for one RGB picture.

        Raises:
            ImageError: if the picture is more than `MAX_ASPECT` times longer than wide.
        """
        width, height = image.size
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise ImageError(
                f"a picture of {width}x{height} pixels is too elongated to resize for a model "
                f"(over {MAX_ASPECT}:1); crop it first."
            )
        out: Any = self.transform(image)
        if not isinstance(out, Tensor) or out.ndim != 3 or out.shape[0] != 3:
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(
                f"the preprocessing must return a tensor of shape (3, H, W), it returned {shape}."
            )
        return out

    def box(self, size: tuple[int, int]) -> Box:
        """The box of an original of `size` (width, height) that the model's input covers."""
        return self._box(size)

    def picture(self, tensor: Float[Tensor, "3 height width"]) -> Image.Image:
        """A preprocessed tensor shown as a picture again (normalisation undone, clipped)."""
        values = tensor.detach().float().cpu()
        mean, std = (torch.tensor(v).to(values).view(3, 1, 1) for v in (self.mean, self.std))
        pixels = ((values * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
        return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def check_tensor(images: Tensor) -> Float[Tensor, "batch 3 height width"]:
    """A preprocessed tensor made a batch, or an error that says what is wrong with it.

    Raises:
        ImageError: wrong number of dimensions or channels, too many pixels, empty, integer, NaN or
            infinite, or without plain numbers in memory (sparse, nested, quantised, on "meta").
    """
    plain = images.layout == torch.strided and not images.is_nested and not images.is_quantized
    if not plain or images.is_meta:
        raise ImageError(
            "a sparse, nested, quantised or meta tensor is no preprocessed batch; give a plain "
            "tensor (B, 3, H, W)."
        )
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[1] != 3:
        raise ImageError(
            f"a tensor of shape {tuple(images.shape)} is not a preprocessed batch; "
            "give (B, 3, H, W) or (3, H, W)."
        )
    if 0 in images.shape:
        raise ImageError(
            f"the batch is empty (shape {tuple(images.shape)}); give at least one image."
        )
    height, width = images.shape[-2:]
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"the tensor's pictures have {width}x{height} pixels, above the limit of "
            f"{MAX_PIXELS:,}; make them smaller first."
        )
    if not images.is_floating_point() or images.dtype.itemsize < 2:
        raise ImageError(
            f"a tensor of {images.dtype} is not preprocessed; pass pictures as PIL images or uint8 "
            "arrays (H, W, 3), or apply the model's preprocessing first."
        )
    if not bool(torch.isfinite(images).all()):
        raise ImageError("the tensor holds NaN or infinite values; clean it first.")
    return images
