"""Does a class's map fall on that class's object? Metrics on images with masks.

Relevance R and token coverage m (the fraction of a token's pixels inside an object's visible mask)
are (objects, patches): one row per object of an image. Definitions: docs/method.md, "Figures".
The pointing, share and energy of a map without positive relevance are 0.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.images.patch_grid import PatchGrid

Relevance: TypeAlias = Float[Tensor, "objects patches"]
PerObject: TypeAlias = Float[Tensor, " objects"]
PerPatch: TypeAlias = Float[Tensor, " patches"]

_POINTING_COVERAGE = 0.3
_AP_COVERAGE = 0.5
_COUNTED = 0.5
"""The least part of a token's pixels that must count for the token to be pointed at."""


class WithMasks(Protocol):
    """A scene or sample with masks (objects, height, width)."""

    @property
    def masks(self) -> Any: ...


@dataclass(frozen=True)
class Coverage:
    """How much of each token each object of an image covers.

    Args:
        tokens: (objects, patches) in 0..1, the part of a token's pixels in an object's mask.
        counted: (patches,) in 0..1, the part of a token's pixels that count; None if all do.
    """

    tokens: Relevance
    counted: PerPatch | None = None

    @classmethod
    def of_masks(
        cls,
        masks: Bool[Tensor, "objects height width"],
        grid: tuple[int, int] | PatchGrid,
        ignore: Bool[Tensor, "height width"] | None = None,
    ) -> Coverage:
        """Coverage by pixel masks on the model's input.

        Args:
            masks: of each object.
            grid: the tokens, or (rows, columns) of a grid that covers the whole input.
            ignore: pixels to ignore; None if all count.
        """
        if ignore is None:
            return cls(_by_token(masks, grid))
        return cls(_by_token(masks & ~ignore, grid), _by_token(~ignore[None], grid)[0])

    @classmethod
    def of_scene(cls, scene: WithMasks, grid: tuple[int, int] | PatchGrid) -> Coverage:
        """Coverage by the masks of a bundled scene."""
        return cls.of_masks(torch.from_numpy(scene.masks.copy()), grid)

    def metrics(self, maps: Float[Tensor, "objects h w"]) -> dict[str, PerObject]:
        """Pointing, share and energy.

        Args:
            maps: a map per object.
        """
        relevance = maps.flatten(1).cpu().double()
        return {
            "pointing": pointing(relevance, self.tokens, self.counted),
            "share": share(relevance, self.tokens),
            "energy": energy(relevance, self.tokens, self.counted),
        }

    def figures(self, maps: Float[Tensor, "objects h w"]) -> dict[str, PerObject]:
        """Deprecated: use `metrics`."""
        warnings.warn(
            "Coverage.figures is deprecated; use Coverage.metrics instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.metrics(maps)


def _by_token(
    masks: Bool[Tensor, "n height width"], grid: tuple[int, int] | PatchGrid
) -> Relevance:
    if isinstance(grid, PatchGrid):
        return grid.pool(masks.double()).flatten(1)
    return F.adaptive_avg_pool2d(masks.double()[None], grid)[0].flatten(1)


def pointing(
    relevance: Relevance, coverage: Relevance, counted: PerPatch | None = None
) -> PerObject:
    """1 where the object covers more than 0.3 of the most relevant token, else 0.

    Tokens that are equally relevant share the hit. Tokens of which less than half counts cannot be
    the most relevant one, and what an object covers is relative to the pixels that count. NaN for
    an object that covers more than 0.3 of no token, which no map could hit.

    Args:
        relevance: a map per object; a map without positive relevance is a miss.
        coverage: of each token by each object.
        counted: the part of each token's pixels that count; None if all do.
    """
    covered, counts = _relative(coverage, counted)
    hit = (covered > _POINTING_COVERAGE) & counts
    best = relevance.where(counts, -torch.inf).amax(-1, keepdim=True)
    tied = (relevance == best) & counts & (best > 0)
    hits = (hit & tied).sum(-1) / tied.sum(-1).clamp_min(1).double()
    return hits.where(hit.any(-1), torch.nan)


def share(relevance: Relevance, coverage: Relevance) -> PerObject:
    """The share of the own object in the relevance on objects: sum R+ m_c / sum R+ sum_c' m_c'.

    1 if all positive relevance on objects is on the target's object; 0 if none is on objects. NaN
    for an object that covers nothing.

    Args:
        relevance: a map per object.
        coverage: of each token by each object.
    """
    positive = relevance.clamp_min(0)
    return _part(positive * coverage, positive * coverage.sum(0), coverage)


def energy(relevance: Relevance, coverage: Relevance, counted: PerPatch | None = None) -> PerObject:
    """Energy-based pointing game: sum R+ m_c / sum R+; 0 if no relevance is positive.

    NaN for an object that covers nothing.

    Args:
        relevance: a map per object.
        coverage: of each token by each object.
        counted: the part of each token's pixels that count, by which R+ is weighted; None if all
            do.
    """
    positive = relevance.clamp_min(0)
    whole = positive if counted is None else positive * counted
    return _part(positive * coverage, whole, coverage)


def token_ap(
    relevance: Relevance, coverage: Relevance, counted: PerPatch | None = None
) -> PerObject:
    """Average precision of relevance against the tokens the object covers by more than half.

    NaN for an object that covers no token by more than half. Needs the extra `bench`
    (scikit-learn).

    Args:
        relevance: a map per object.
        coverage: of each token by each object.
        counted: the part of each token's pixels that count; tokens of which less than half counts
            are left out. None if all do.
    """
    from sklearn.metrics import average_precision_score

    covered, counts = _relative(coverage, counted)
    values: list[Any] = [
        average_precision_score(truth.numpy(), scores.numpy()) if truth.any() else torch.nan
        for truth, scores in zip(
            (covered > _AP_COVERAGE)[:, counts], relevance[:, counts], strict=True
        )
    ]
    return torch.tensor(values, dtype=torch.float64)


def _relative(
    coverage: Relevance, counted: PerPatch | None
) -> tuple[Relevance, Bool[Tensor, " patches"]]:
    """Coverage of the pixels that count, and the tokens of which enough count."""
    if counted is None:
        return coverage, torch.ones_like(coverage[0], dtype=torch.bool)
    counts = counted >= _COUNTED
    return coverage / counted.clamp_min(_COUNTED), counts


def _part(above: Relevance, below: Relevance, coverage: Relevance) -> PerObject:
    """Sum above / sum below, 0 where the latter is 0; NaN for objects that cover nothing."""
    part, whole = above.sum(-1), below.sum(-1)
    ratio = torch.where(whole > 0, part / whole, torch.zeros_like(part))
    return ratio.where(coverage.sum(-1) > 0, torch.nan)
