"""The values that replace removed pixels. Published protocols differ in them, hence the names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from gradtoken.errors import MethodError
from gradtoken.precision import wide

Fill: TypeAlias = Literal["black", "grey", "mean", "blur"]
_KERNEL, _SIGMA = 11, 5.0


def filled(
    images: Float[Tensor, "batch channels height width"],
    fill: Fill,
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Tensor, "batch channels height width"]:
    """Images of nothing but the fill, in the images' normalised space.

    Args:
        images: preprocessed, (B, C, H, W).
        fill: "black": 0 in all channels before normalisation (Chefer et al., CVPR 2021). "grey":
            0 in normalised space (RISE, AGCAM). "mean": each image's mean colour. "blur": the
            image under a Gaussian of 11 pixels and sigma 5 (RISE).
        mean: per channel, or one for all, what preprocessing subtracted from the images.
        std: per channel, or one for all, what it divided them by.

    Raises:
        MethodError: another fill, or means and deviations of other channels than the images'.
    """
    counts = {len(mean), len(std), images.shape[1]} - {1}
    if len(counts) > 1:
        raise MethodError(
            f"{len(mean)} means and {len(std)} standard deviations were given for images of "
            f"{images.shape[1]} channels; give one for each."
        )
    if fill == "black":
        shift, scale = (
            torch.tensor(v, dtype=torch.float64).to(images).view(-1, 1, 1) for v in (mean, std)
        )
        return (-shift / scale).expand_as(images)
    if fill == "grey":
        return torch.zeros_like(images)
    if fill == "mean":
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    if fill == "blur":
        blurred = gaussian_blur(wide(images), [_KERNEL, _KERNEL], [_SIGMA, _SIGMA])
        return blurred.to(images.dtype)
    raise MethodError(f"no fill is named {fill!r}; use {', '.join(map(repr, get_args(Fill)))}.")
