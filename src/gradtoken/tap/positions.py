"""A few positions of a token sequence."""

from __future__ import annotations

import torch
from torch import Tensor


class Positions:
    """Picks some tokens, with an index that is made once for each device."""

    def __init__(self, rows: tuple[int, ...]) -> None:
        self.rows = rows
        self._index: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, tokens: Tensor, dim: int = 1) -> Tensor:
        """A copy of the tokens at these positions of a dimension."""
        return tokens.index_select(dim, self.index(tokens.device))

    def index(self, device: torch.device) -> Tensor:
        """The positions as a tensor."""
        if device not in self._index:
            self._index[device] = torch.tensor(self.rows, device=device)
        return self._index[device]
