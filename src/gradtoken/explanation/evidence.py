"""Does a map hold anything that speaks for its target? The measure and its threshold.

A map whose relevance is almost wholly negative says that nothing in the image speaks for the
target. Drawn by its own largest value it would look like any other map, so displays and reports ask
here.
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
    """What the maps of some targets hold; all fields have the shape of the targets.

    Attributes:
        total: signed sum of the tokens' relevance.
        positive: positive relevance's share of the absolute relevance, 0 to 1; 0 for a map of
            zeros.
        none: whether that share is below `LEAST`: no positive evidence.
    """

    total: Float[Tensor, "*targets"]
    positive: Float[Tensor, "*targets"]
    none: Bool[Tensor, "*targets"]

    def __getitem__(self, index: Any) -> Evidence:
        return Evidence(self.total[index], self.positive[index], self.none[index])

    def words(self) -> str:
        """Of a single map: empty, or "no positive evidence" with the signed total."""
        return f"no positive evidence, sum {float(self.total):.3g}" if bool(self.none) else ""

    def to_dict(self) -> dict[str, Any]:
        """Of a single map, as plain data."""
        return {
            "total": float(self.total),
            "positive": float(self.positive),
            "none": bool(self.none),
        }


def evidence_of(tokens: Float[Tensor, "*targets height width"]) -> Evidence:
    """The evidence in maps.

    Methods without a sign have no negative relevance: of theirs, only maps of zeros have none.

    Args:
        tokens: relevance of the spatial tokens, signed or not, (…, h, w).
    """
    maps = tokens.detach().double().flatten(-2)
    absolute = maps.abs().sum(-1)
    positive = maps.clamp_min(0).sum(-1) / absolute.where(absolute > 0, 1)
    return Evidence(maps.sum(-1), positive, positive < LEAST)
