"""How the tokens that a step reads lie along the model's token sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Alignment:
    """Where the sequence's tokens stand among those of a pool or an attention after the blocks.

    Args:
        shift: a token's position there minus its position in the sequence.
        from_end: whether both positions are counted from the end.
    """

    shift: int = 0
    from_end: bool = True

    def positions(self, tokens: Sequence[int], length: int, count: int) -> tuple[int, ...]:
        """Positions among `count` tokens of some of a sequence of `length`."""
        shift = self.shift + (count - length if self.from_end else 0)
        return tuple(position + shift for position in tokens)

    @classmethod
    def of(
        cls, tokens: Sequence[int], positions: Sequence[int], length: int, count: int
    ) -> Alignment | None:
        """The alignment that puts `tokens` of a sequence at `positions`, or None."""
        shifts = {at - token for token, at in zip(tokens, positions, strict=True)}
        if len(shifts) != 1:
            return None
        shift = shifts.pop()
        return cls() if shift == count - length else cls(shift, from_end=False)


def along_sequence(
    row: Float[Tensor, "*some keys"], keys: Sequence[int]
) -> Float[Tensor, "*some tokens"]:
    """Values of keys as values of the sequence's tokens, each of which is a key or none (-1)."""
    at = torch.tensor(keys, device=row.device)
    return torch.where(at < 0, 0, row.index_select(-1, at.clamp_min(0)))
