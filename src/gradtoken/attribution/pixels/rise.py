"""RISE: random masks weighted by the probability they leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.attribution.base import NO_GRADIENT, Method
from gradtoken.attribution.options import check_fraction, check_seed, check_whole
from gradtoken.precision import wide
from gradtoken.targets import Targets
from gradtoken.trace.trace import Trace

_CHUNK = 64
"""Images that the model runs on at once."""


@dataclass(frozen=True, kw_only=True)
class RISE(Method):
    """R = sum_m p(x * M_m) M_m / (masks * keep), then the mean over each token's pixels.

    M_m are random coarse grids, enlarged bilinearly and shifted; covered pixels are grey (0 in
    normalised space). The same masks serve all images and targets. p is the probability of the
    target's class, or the score y of a target that is no class.

    Args:
        masks: number of masks.
        cells: number of cells along the coarse grid's side.
        keep: probability that a cell is kept.
        seed: seed of the masks.
    """

    name: ClassVar[str] = "rise"
    summary: ClassVar[str] = "random masks weighted by the probability they leave"
    source: ClassVar[str] = "Petsiuk, Das, Saenko, BMVC 2018"
    no_libra: ClassVar[str] = NO_GRADIENT
    slow: ClassVar[bool] = True
    trial: ClassVar[dict[str, Any]] = {"masks": 4}

    masks: int = 500
    cells: int = 7
    keep: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self, "masks")
        check_whole(self, "cells")
        check_fraction(self, "keep")
        check_seed(self)

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        height, width = trace.images.shape[-2:]
        shape = (len(trace.images), targets.count, trace.spatial)
        maps = torch.zeros(shape, dtype=wide(trace.logits).dtype, device=trace.logits.device)
        with torch.no_grad():
            for chunk in self.mask_chunks((height, width)):
                masks = chunk.to(trace.images)
                pooled = trace.patch_grid.pool(masks.to(maps.dtype)).flatten(1)
                for b, image in enumerate(trace.images):
                    own = Targets([targets.rows[b]])
                    values = target_values(trace, own, image * masks[:, None])
                    maps[b] += values.T @ pooled
        return maps / (self.masks * self.keep)

    def mask_chunks(self, size: tuple[int, int]) -> Iterator[Float[Tensor, "chunk height width"]]:
        """All masks for inputs of `size` (height, width), in 0..1, chunk by chunk.

        They are the same at every call.
        """
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.masks, 1, self.cells, self.cells)
        coarse = torch.rand(shape, generator=generator, dtype=torch.float32)
        coarse = (coarse < self.keep).float()
        cell = [-(-side // self.cells) for side in size]
        shifts = [torch.randint(0, c, (self.masks,), generator=generator) for c in cell]
        for chunk, tops, lefts in zip(*(t.split(_CHUNK) for t in (coarse, *shifts)), strict=True):
            large = F.interpolate(
                chunk, [(self.cells + 1) * c for c in cell], mode="bilinear", align_corners=False
            )[:, 0]
            yield torch.stack(
                [
                    mask[top : top + size[0], left : left + size[1]]
                    for mask, top, left in zip(large, tops.tolist(), lefts.tolist(), strict=True)
                ]
            )


def target_values(
    trace: Trace, targets: Targets, images: Float[Tensor, "images channels height width"]
) -> Float[Tensor, "images targets"]:
    """The probability of the targets of one image on other images; y of a target that is no class.

    Args:
        trace: a record with the model.
        targets: the targets of a single image.
        images: the images that the model runs on.
    """
    logits = wide(trace.model(images))
    repeated = Targets(targets.rows * len(logits))
    probability = repeated.probabilities(logits, trace.model.activation)
    scores = repeated.scores(logits[:, None].expand(-1, targets.count, -1))
    return torch.where(probability.isnan(), scores, probability)
