"""Occlusion: how much the score falls when a window of the image is covered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import NO_GRADIENT
from gradtoken.attribution.options import check_fill, check_whole
from gradtoken.attribution.pixels.base import Image, PixelMethod, Score
from gradtoken.errors import MethodError
from gradtoken.images.fills import Fill, filled
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.trace.trace import Trace

_CHUNK = 32
"""Images that the model runs on at once."""


@dataclass(frozen=True, kw_only=True)
class Occlusion(PixelMethod):
    """y(x) - y(x with a window covered), mean over the windows that cover a token.

    Args:
        window: side of the window in tokens.
        stride: tokens from one window to the next.
        fill: content of the covered window: "grey", "black", "mean" or "blur".
    """

    name: ClassVar[str] = "occlusion"
    summary: ClassVar[str] = "fall of the score when a token's pixels are covered"
    source: ClassVar[str] = "Zeiler and Fergus, ECCV 2014; through captum"
    no_libra: ClassVar[str] = NO_GRADIENT
    slow: ClassVar[bool] = True
    trial: ClassVar[dict[str, Any]] = {"window": 6, "stride": 6}

    window: int = 1
    stride: int = 1
    fill: Fill = "grey"

    def __post_init__(self) -> None:
        check_whole(self, "window")
        check_whole(self, "stride")
        check_fill(self, "fill")
        if self.stride > self.window:
            raise MethodError(
                f"occlusion's stride is {self.stride} with windows of {self.window}, so some "
                "tokens would never be covered; use a stride up to the window."
            )

    def _attribute(self, score: Score, image: Image, trace: Trace) -> Image:
        from captum.attr import Occlusion as Attribution

        preprocess, (rows, columns) = trace.model.preprocess, trace.grid
        down, across = trace.patch_grid.slices()
        part = image[..., down, across]
        high, wide = part.shape[-2] // rows, part.shape[-1] // columns
        depth = image.shape[1]
        cover = filled(image, self.fill, preprocess.mean, preprocess.std)[..., down, across]

        def score_with(parts: Image) -> Float[Tensor, " images"]:
            images = image.repeat(len(parts), 1, 1, 1)
            images[..., down, across] = parts
            return score(images)

        attribution = torch.zeros_like(image)
        with torch.no_grad():
            attribution[..., down, across] = Attribution(score_with).attribute(
                part.contiguous(),
                sliding_window_shapes=(
                    depth,
                    min(self.window, rows) * high,
                    min(self.window, columns) * wide,
                ),
                strides=(depth, self.stride * high, self.stride * wide),
                baselines=cover.contiguous(),
                perturbations_per_eval=_CHUNK,
            )
        return attribution

    def _pooled(self, pixels: Image, grid: PatchGrid) -> Float[Tensor, " patches"]:
        return grid.pool(pixels.mean(1)).flatten()
