"""What was verified of how a model is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from torch import nn

from gradtoken.errors import ModelError
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.tap.alignment import Alignment


@dataclass(frozen=True)
class Probed:
    """Where the spatial tokens are, and how that was found.

    Args:
        grid: the answer.
        how: "exact", "measured" or "confirmed".
        value: the largest distance of a token's centre from its place in the grid, in cells; for
            "confirmed", the smaller correlation of claimed and measured rows and columns.
        allowed: the largest such distance, or the smallest such correlation, that is accepted.
    """

    grid: PatchGrid
    how: str
    value: float
    allowed: float


class Misread(ModelError):
    """A reading that the model's own gradient contradicts."""


@dataclass(frozen=True)
class Fact:
    """One thing verified.

    Args:
        what: in words.
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
class Verified:
    """What verification found of one backbone.

    Args:
        facts: what was verified, with numbers.
        tail: how the sequence lies along the tokens that each attention after the last block
            attends to; None for one that attends to no tokens of the sequence.
        pooled: how it lies along the tokens that the head averages.
        blank: whether the output depends on nothing at all, so that nothing could be verified.
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
    """What is known of one backbone of a model.

    Args:
        structure: tells whether the module is still made of the same parts.
        facts: what was verified, with numbers.
        tail: how the sequence lies along the tokens of each attention after the last block; None
            for one that attends to no patches.
        pooled: how it lies along the tokens that the head averages.
        blank: whether the output depended on nothing, so that the reading is yet to be verified.
        outputs: C, how many logits the model returns.
        differentiable: whether the model keeps gradients on from its pixels to its blocks.
        stream: whether the readout tokens, run through the blocks alone, are the model's own.
        writes_in_place: whether it writes into tensors in place, as is assumed until it has run.
        probed: where the spatial tokens are, by the input's shape.
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
    probed: dict[Shape, Probed] = field(default_factory=dict)

    def take(self, verified: Verified) -> None:
        """Keep what verification found."""
        self.facts, self.tail = verified.facts, verified.tail
        self.pooled, self.blank = verified.pooled, verified.blank
