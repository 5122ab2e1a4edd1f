"""What was verified of how a model is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from torch import nn

from gradtoken.errors import ModelError
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.tap.alignment import Alignment


@dataclass(frozen=True)
class LocatedGrid:
    """The grid of the spatial tokens, and how it was located.

    Args:
        grid: which tokens are spatial, and where they lie.
        how: "exact", "measured" or "confirmed".
        value: the largest distance of a token's centre from its place in the grid, in cells; for
            "confirmed", the smaller correlation of claimed and measured rows and columns.
        allowed: the largest such distance, or the smallest such correlation, that is accepted.
    """

    grid: PatchGrid
    how: str
    value: float
    allowed: float


class ReadingError(ModelError):
    """A reading that contradicts what the model's own forward and gradient show."""


@dataclass(frozen=True)
class Fact:
    """One verified quantity.

    Args:
        what: its name.
        value: the number measured.
        allowed: the largest value (with `least`, the smallest) that confirms the reading.
        least: whether `allowed` is a lower bound.
    """

    what: str
    value: float
    allowed: float
    least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the number confirms the reading."""
        return self.value >= self.allowed if self.least else self.value <= self.allowed


@dataclass(frozen=True)
class VerifiedReadout:
    """The result of verifying one backbone.

    Args:
        facts: what was verified, with numbers.
        tail: how the sequence lies along the tokens that each attention after the last block
            attends to; None for one that attends to no tokens of the sequence.
        pooled: how it lies along the tokens that the head averages.
        blank: whether the output depends on no block, so that nothing could be verified.
    """

    facts: tuple[Fact, ...]
    tail: tuple[Alignment | None, ...]
    pooled: Alignment
    blank: bool = False


Shape: TypeAlias = tuple[int, ...]
"""(channels, height, width) of an input."""


Structure: TypeAlias = tuple[tuple[str, type[nn.Module]], ...]


@dataclass(eq=False)
class Reading:
    """What was verified of one backbone of a model.

    Args:
        structure: names and classes of the module's parts, to notice when they are exchanged.
        facts: what was verified, with numbers.
        tail: how the sequence lies along the tokens of each attention after the last block; None
            for one that attends to no patches.
        pooled: how it lies along the tokens that the head averages.
        blank: whether the output depended on nothing, so that the reading is yet to be verified.
        outputs: C, how many logits the model returns.
        differentiable: whether the model keeps gradients on from its pixels to its blocks.
        stream: whether the readout tokens, run through the blocks alone, are the model's own.
        writes_in_place: whether it writes into tensors in place, as is assumed until it has run.
        grids: where the spatial tokens are, by the input's shape.
    """

    structure: Structure
    facts: tuple[Fact, ...] = ()
    tail: tuple[Alignment | None, ...] = ()
    pooled: Alignment = field(default_factory=Alignment)
    blank: bool = True
    outputs: int = 0
    differentiable: bool = True
    stream: bool = True
    writes_in_place: bool = True
    grids: dict[Shape, LocatedGrid] = field(default_factory=dict)

    def update(self, verified: VerifiedReadout) -> None:
        """Take over the result of a verification."""
        self.facts, self.tail = verified.facts, verified.tail
        self.pooled, self.blank = verified.pooled, verified.blank
