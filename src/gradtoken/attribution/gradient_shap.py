"""Gradient SHAP: expected gradients between baselines and noisy pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gradtoken.attribution.pixels import Image, PixelMethod, Score, check_whole
from gradtoken.metrics.fills import filled
from gradtoken.trace import Trace


@dataclass(frozen=True, kw_only=True)
class GradientShap(PixelMethod):
    """Mean of (x - x') * dy/dx at random points between a baseline x' and x + noise.

    Baselines are the black, grey, mean-coloured and blurred picture; summed over each token's
    pixels and channels.

    Args:
        samples: random points.
        noise: standard deviation of the noise, in normalised values.
        seed: of the points and the noise.
    """

    name: ClassVar[str] = "gradient-shap"
    summary: ClassVar[str] = "expected gradients from four baselines, signed"
    source: ClassVar[str] = "Lundberg and Lee, NeurIPS 2017; Erion et al., 2021; through captum"
    slow: ClassVar[bool] = True
    trial: ClassVar[dict[str, Any]] = {"samples": 2}

    samples: int = 16
    noise: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self.name, "samples", self.samples)

    def _attribute(self, score: Score, image: Image, trace: Trace) -> Image:
        from captum.attr import GradientShap as Attribution

        about = trace.model.preprocess
        baselines = torch.cat(
            [
                filled(image, fill, about.mean, about.std)
                for fill in ("black", "grey", "mean", "blur")
            ]
        )
        found: Tensor = Attribution(score).attribute(
            image, baselines, n_samples=self.samples, stdevs=self.noise
        )
        return found
