"""Does a class's map fall on that class's object? Figures on pictures with masks.

Relevance R and token coverage m (the fraction of a token's pixels inside an object's visible mask)
are (objects, patches): one row per object of one picture. Definitions: docs/method.md, "Figures".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.patch_grid import PatchGrid

if TYPE_CHECKING:
    from gradtoken.datasets import Scene

Relevance: TypeAlias = Float[Tensor, "objects patches"]
PerObject: TypeAlias = Float[Tensor, " objects"]

_POINTING_COVERAGE = 0.3
_AP_COVERAGE = 0.5


@dataclass(frozen=True)
class Coverage:
    """How much of each token each object of a picture covers: (objects, patches) in 0..1."""

    tokens: Relevance

    @classmethod
    def of_masks(
        cls, masks: Bool[Tensor, "objects height width"], grid: tuple[int, int] | PatchGrid
    ) -> Coverage:
        """From pixel masks of the model's input, and its grid of tokens.

        Args:
            masks: one for each object.
            grid: the tokens, or rows and columns of a grid that covers the whole input.
        """
        if isinstance(grid, PatchGrid):
            return cls(grid.pool(masks.double()).flatten(1))
        return cls(F.adaptive_avg_pool2d(masks.double()[None], grid)[0].flatten(1))

    @classmethod
    def of_scene(cls, scene: Scene, grid: tuple[int, int] | PatchGrid) -> Coverage:
        """From a bundled scene."""
        return cls.of_masks(torch.from_numpy(scene.masks.copy()), grid)

    def figures(self, maps: Float[Tensor, "objects h w"]) -> dict[str, PerObject]:
        """Pointing, share and energy of one map per object."""
        relevance = maps.flatten(1).double().cpu()
        return {
            "pointing": pointing(relevance, self.tokens),
            "share": share(relevance, self.tokens),
            "energy": energy(relevance, self.tokens),
        }


def pointing(relevance: Relevance, coverage: Relevance) -> PerObject:
    """1 where the most relevant token is covered by more than 0.3 by the object, else 0."""
    best = relevance.argmax(-1, keepdim=True)
    return (coverage.gather(-1, best)[:, 0] > _POINTING_COVERAGE).double()


def share(relevance: Relevance, coverage: Relevance) -> PerObject:
    """Which of the objects present gets the relevance: sum R+ m_c / sum R+ sum_c' m_c'.

    1 if positive relevance on objects is all on the object asked for; NaN if none is on objects.
    """
    positive = relevance.clamp_min(0)
    return (positive * coverage).sum(-1) / (positive * coverage.sum(0)).sum(-1)


def energy(relevance: Relevance, coverage: Relevance) -> PerObject:
    """Energy-based pointing game: sum R+ m_c / sum R+; NaN if no relevance is positive."""
    positive = relevance.clamp_min(0)
    return (positive * coverage).sum(-1) / positive.sum(-1)


def token_ap(relevance: Relevance, coverage: Relevance) -> PerObject:
    """Average precision of relevance against the tokens the object covers by more than half.

    NaN for an object that covers no token so far. Needs the extra `bench` (scikit-learn).
    """
    from sklearn.metrics import average_precision_score

    values: list[Any] = [
        average_precision_score(truth.numpy(), scores.numpy()) if truth.any() else torch.nan
        for truth, scores in zip(coverage > _AP_COVERAGE, relevance, strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64)
