"""Saliency: the absolute gradient of the score by the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.pixels.base import Image, PixelGradient, Score
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Saliency(PixelGradient):
    """|dy/dx|, the largest channel, mean over each token's pixels."""

    name: ClassVar[str] = "saliency"
    summary: ClassVar[str] = "absolute gradient of the score by the pixels"
    source: ClassVar[str] = "Simonyan, Vedaldi, Zisserman, 2014; through captum"

    def _attribute(self, score: Score, image: Image, trace: Trace) -> Image:
        from captum.attr import Saliency as Attribution

        attribution: Tensor = Attribution(score).attribute(image.requires_grad_(), abs=True)
        return attribution

    def _pooled(self, pixels: Image, grid: PatchGrid) -> Float[Tensor, " patches"]:
        return grid.pool(pixels.amax(1)).flatten()
