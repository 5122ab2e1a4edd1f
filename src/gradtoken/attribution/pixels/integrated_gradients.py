"""Integrated gradients on the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from gradtoken.attribution.options import check_fill, check_whole
from gradtoken.attribution.pixels.base import Image, PixelGradient, Score
from gradtoken.images.fills import Fill, filled
from gradtoken.trace.trace import Trace

_CHUNK = 16
"""Images that the model runs on at once."""


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(PixelGradient):
    """(x - x') * integral of dy/dx from x' to x, sum over each token's pixels and channels.

    Args:
        steps: points of the integral (Gauss-Legendre).
        baseline: x': "black", "grey", "mean" or "blur".
    """

    name: ClassVar[str] = "integrated-gradients"
    summary: ClassVar[str] = "gradient integrated from a baseline image, signed"
    source: ClassVar[str] = "Sundararajan, Taly, Yan, ICML 2017; through captum"
    slow: ClassVar[bool] = True
    trial: ClassVar[dict[str, Any]] = {"steps": 2}

    steps: int = 32
    baseline: Fill = "black"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "steps")
        check_fill(self, "baseline")

    def _attribute(self, score: Score, image: Image, trace: Trace) -> Image:
        from captum.attr import IntegratedGradients as Attribution

        preprocess = trace.model.preprocess
        start = filled(image, self.baseline, preprocess.mean, preprocess.std).contiguous()
        attribution: Tensor = Attribution(score).attribute(
            image, start, n_steps=self.steps, internal_batch_size=_CHUNK
        )
        return attribution
