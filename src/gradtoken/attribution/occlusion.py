"""Occlusion: how much the score falls when a window of the picture is covered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.attribution.pixels import Image, PixelMethod, Score, check_fill, check_whole
from gradtoken.errors import MethodError
from gradtoken.metrics.fills import Fill, filled
from gradtoken.trace import Trace

_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Occlusion(PixelMethod):
    """y(x) - y(x with a window covered), mean over the windows that cover a token.

    Args:
        window: side of the window in tokens.
        stride: tokens from one window to the next.
        fill: what covers it: "grey", "black", "mean" or "blur".
    """

    name: ClassVar[str] = "occlusion"
    summary: ClassVar[str] = "fall of the score when a token's pixels are covered"
    source: ClassVar[str] = "Zeiler and Fergus, ECCV 2014; through captum"
    slow: ClassVar[bool] = True
    trial: ClassVar[dict[str, Any]] = {"window": 6, "stride": 6}

    window: int = 1
    stride: int = 1
    fill: Fill = "grey"

    def __post_init__(self) -> None:
        check_whole(self.name, "window", self.window)
        check_whole(self.name, "stride", self.stride)
        check_fill(self.name, "fill", self.fill)
        if self.stride > self.window:
            raise MethodError(
                f"occlusion's stride is {self.stride} with windows of {self.window}, so some "
                "tokens would never be covered; use a stride up to the window."
            )

    def _attribute(self, score: Score, image: Image, trace: Trace) -> Image:
        from captum.attr import Occlusion as Attribution

        about, (rows, columns) = trace.model.preprocess, trace.grid
        high, wide = image.shape[-2] // rows, image.shape[-1] // columns
        channels = image.shape[1]
        window = (channels, min(self.window, rows) * high, min(self.window, columns) * wide)
        cover = filled(image, self.fill, about.mean, about.std).contiguous()
        with torch.no_grad():
            found: Tensor = Attribution(score).attribute(
                image,
                sliding_window_shapes=window,
                strides=(channels, self.stride * high, self.stride * wide),
                baselines=cover,
                perturbations_per_eval=_AT_ONCE,
            )
        return found

    def _pooled(self, pixels: Image, grid: tuple[int, int]) -> Float[Tensor, " patches"]:
        return F.adaptive_avg_pool2d(pixels.mean(1), grid).flatten()
