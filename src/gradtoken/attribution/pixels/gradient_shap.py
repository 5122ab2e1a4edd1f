"""Gradient SHAP: expected gradients between baselines and noisy images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gradtoken.attribution.options import check_number, check_seed, check_whole
from gradtoken.attribution.pixels.base import Image, PixelGradient, Score, noise_like
from gradtoken.images.fills import Fill, filled
from gradtoken.precision import wide
from gradtoken.trace.trace import Trace

_CHUNK = 16
"""Images that the model runs on at once."""
_BASELINES: tuple[Fill, ...] = ("black", "grey", "mean", "blur")


@dataclass(frozen=True, kw_only=True)
class GradientShap(PixelGradient):
    """Mean of (x - x') * dy/dx at random points between a baseline x' and x + noise.

    Baselines are the black, grey, mean-coloured and blurred image; summed over each token's
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
        super().__post_init__()
        check_whole(self, "samples")
        check_number(self, "noise")
        check_seed(self)

    def _attribute(self, score: Score, image: Image, trace: Trace) -> Image:
        from captum.attr import Saliency

        preprocess = trace.model.preprocess
        fills = [filled(image, fill, preprocess.mean, preprocess.std) for fill in _BASELINES]
        baselines = torch.cat(fills)
        generator = torch.Generator().manual_seed(self.seed)
        chance = np.random.RandomState(self.seed)
        total = torch.zeros_like(wide(image))
        for start in range(0, self.samples, _CHUNK):
            count = min(_CHUNK, self.samples - start)
            noisy = image + float(self.noise) * noise_like(image, count, generator)
            away = noisy - baselines[chance.choice(len(baselines), count)]
            left = torch.from_numpy(1 - chance.uniform(0, 1, count)).to(noisy)
            points = noisy - left[:, None, None, None] * away
            gradient: Tensor = Saliency(score).attribute(points.requires_grad_(), abs=False)
            total += wide((away * gradient).detach()).sum(0)
        return total / self.samples
