"""SmoothGrad: saliency averaged over noisy images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.options import check_fraction, check_seed, check_whole
from gradtoken.attribution.pixels.base import Image, PixelGradient, Score, noise_like
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.precision import wide
from gradtoken.trace.trace import Trace

_CHUNK = 8
"""Images that the model runs on at once."""


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(PixelGradient):
    """Mean of |dy/dx| at x + noise, the largest channel, mean over each token's pixels.

    Args:
        samples: number of noisy images.
        noise: standard deviation, relative to the image's range of values.
        seed: of the noise.
    """

    name: ClassVar[str] = "smoothgrad"
    summary: ClassVar[str] = "saliency averaged over noisy images"
    source: ClassVar[str] = "Smilkov et al., 2017; through captum"
    slow: ClassVar[bool] = True
    trial: ClassVar[dict[str, Any]] = {"samples": 2}

    samples: int = 16
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "samples")
        check_fraction(self, "noise")
        check_seed(self)

    def _attribute(self, score: Score, image: Image, trace: Trace) -> Image:
        from captum.attr import Saliency

        spread = float(image.detach().max() - image.detach().min()) * self.noise
        generator = torch.Generator().manual_seed(self.seed)
        total = torch.zeros_like(wide(image))
        for start in range(0, self.samples, _CHUNK):
            count = min(_CHUNK, self.samples - start)
            noisy = image + spread * noise_like(image, count, generator)
            gradient: Tensor = Saliency(score).attribute(noisy.requires_grad_(), abs=True)
            total += wide(gradient.detach()).sum(0)
        return total / self.samples

    def _pooled(self, pixels: Image, grid: PatchGrid) -> Float[Tensor, " patches"]:
        return grid.pool(pixels.amax(1)).flatten()
