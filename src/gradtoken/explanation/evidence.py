"""Positive evidence in a map: its measure and its threshold.

A map whose relevance is almost wholly negative has no evidence for its target. Scaled by its own
largest value it would look like any other map, so figures and reports use this measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

LEAST = 0.1
"""A map has positive evidence if at least this share of its absolute relevance is positive."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence in the maps of some targets; all fields have the shape of the targets.

    Attributes:
        total: signed sum of the tokens' relevance.
        positive: share of the absolute relevance that is positive, 0 to 1; 0 for a map of zeros.
        none: whether that share is below `LEAST`: no positive evidence.
    """

    total: Float[Tensor, "*targets"]
    positive: Float[Tensor, "*targets"]
    none: Bool[Tensor, "*targets"]

    def __getitem__(self, index: Any) -> Evidence:
        return Evidence(self.total[index], self.positive[index], self.none[index])

    def words(self) -> str:
        """For a single map: "no positive evidence" with the signed total, or an empty text."""
        return f"no positive evidence, sum {float(self.total):.3g}" if bool(self.none) else ""

    def to_dict(self) -> dict[str, Any]:
        """For a single map, as plain data."""
        return {
            "total": float(self.total),
            "positive": float(self.positive),
            "none": bool(self.none),
        }


def evidence_of(tokens: Float[Tensor, "*targets height width"]) -> Evidence:
    """The evidence in maps.

    Maps of unsigned methods have no negative relevance: among them, only maps of zeros have none.

    Args:
        tokens: relevance of the spatial tokens, signed or not, (…, h, w).
    """
    maps = tokens.detach().double().flatten(-2)
    absolute = maps.abs().sum(-1)
    positive = maps.clamp_min(0).sum(-1) / absolute.where(absolute > 0, 1)
    return Evidence(maps.sum(-1), positive, positive < LEAST)
