"""Input x gradient: first-order attribution to pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from gradtoken.attribution.pixels.base import Image, PixelGradient, Score
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class InputXGradient(PixelGradient):
    """x * dy/dx (x normalised), sum over each token's pixels and channels."""

    name: ClassVar[str] = "input-x-gradient"
    summary: ClassVar[str] = "pixels times gradient, signed"
    source: ClassVar[str] = "Shrikumar et al., 2016; through captum"

    def _attribute(self, score: Score, image: Image, trace: Trace) -> Image:
        from captum.attr import InputXGradient as Attribution

        attribution: Tensor = Attribution(score).attribute(image.requires_grad_())
        return attribution
