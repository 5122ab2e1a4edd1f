"""RISE: random masks weighted by the probability they leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.attribution.base import Method
from gradtoken.attribution.options import check_fraction, check_seed, check_whole
from gradtoken.precision import wide
from gradtoken.targets import Targets
from gradtoken.trace.trace import Trace

_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class RISE(Method):
    """R = sum_m p(x * M_m) M_m / (masks * keep), then the mean over each token's pixels.

    M_m are random coarse grids, enlarged bilinearly and shifted; covered pixels are grey (0 in
    normalised space). The same masks serve all images and targets. p is the probability of the
    target's class, or the score y of a target that is no class.

    Args:
        masks: how many.
        cells: of the coarse grid's side.
        keep: probability that a cell is kept.
        seed: of the masks.
    """

    name: ClassVar[str] = "rise"
    summary: ClassVar[str] = "random masks weighted by the probability they leave"
    source: ClassVar[str] = "Petsiuk, Das, Saenko, BMVC 2018"
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
            for drawn in self.drawn((height, width)):
                masks = drawn.to(trace.images)
                pooled = trace.patch_grid.pool(masks.to(maps.dtype)).flatten(1)
                for b, image in enumerate(trace.images):
                    one = Targets([targets.rows[b]])
                    found = values_of(trace, one, image * masks[:, None])
                    maps[b] += found.T @ pooled
        return maps / (self.masks * self.keep)

    def drawn(self, size: tuple[int, int]) -> Iterator[Float[Tensor, "some height width"]]:
        """The masks on the pixels of an input of `size` (height, width), in 0..1, some at a time.

        In all `masks` of them, the same at every call.
        """
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.masks, 1, self.cells, self.cells)
        drawn = torch.rand(shape, generator=generator, dtype=torch.float32)
        coarse = (drawn < self.keep).float()
        cell = [-(-side // self.cells) for side in size]
        shifts = [torch.randint(0, c, (self.masks,), generator=generator) for c in cell]
        for some, tops, lefts in zip(*(t.split(_AT_ONCE) for t in (coarse, *shifts)), strict=True):
            large = F.interpolate(
                some, [(self.cells + 1) * c for c in cell], mode="bilinear", align_corners=False
            )[:, 0]
            yield torch.stack(
                [
                    mask[top : top + size[0], left : left + size[1]]
                    for mask, top, left in zip(large, tops.tolist(), lefts.tolist(), strict=True)
                ]
            )


def values_of(
    trace: Trace, one: Targets, pictures: Float[Tensor, "pictures channels height width"]
) -> Float[Tensor, "pictures targets"]:
    """Probability of each of one image's targets on other pictures; y where one is no class."""
    logits = wide(trace.model(pictures))
    many = Targets(one.rows * len(logits))
    probability = many.probabilities(logits, trace.model.activation)
    scores = many.scores(logits[:, None].expand(-1, one.count, -1))
    return torch.where(probability.isnan(), scores, probability)
