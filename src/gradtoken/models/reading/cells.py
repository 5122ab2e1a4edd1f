"""Which cell of a claimed grid each token lies in, shown by one image changed cell by cell."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.images.patch_grid import PatchGrid

CERTAIN = 0.8
"""Correlation of the changes of cells and of their tokens from which on a claimed grid is
confirmed: tokens that change as their own cells do reach less than 0.55 in any wrong order tried
(flipped, turned, moved by a row, a column or a token, in the order of windows)."""

ENOUGH = 36
"""Cells, from which on tokens in another order do not correlate so by chance."""

_LEAST = 0.03
"""Of the largest variance that is added, the smallest: every pixel changes."""


def cell_amplitudes(grid: PatchGrid) -> Float[Tensor, "height width"]:
    """Factors of noise for each pixel, which differ between all cells of a grid over the input."""
    at = _variances(grid).sqrt().view(grid.shape)
    rows, columns = (
        torch.arange(pixels) * cells // pixels
        for pixels, cells in zip(grid.size, grid.shape, strict=True)
    )
    return at[rows[:, None], columns]


def cells_alike(grid: PatchGrid, changes: Float[Tensor, " tokens"]) -> float:
    """The correlation of the changes of a grid's cells and of their tokens, of the logarithms.

    Args:
        grid: the claimed grid.
        changes: the square of each token's change, the pixels having changed by noise times
            `cell_amplitudes`.
    """
    shown = changes[torch.tensor(grid.positions)].double()
    shown = shown.clamp_min(torch.finfo(shown.dtype).tiny).log()
    return float(torch.corrcoef(torch.stack([_variances(grid).log(), shown]))[0, 1])


def _variances(grid: PatchGrid) -> Float[Tensor, " cells"]:
    """A variance for each cell, evenly spaced and in an order that looks like no other order."""
    order = torch.randperm(grid.count, generator=torch.Generator().manual_seed(238))
    return _LEAST + (1 - _LEAST) * order.double() / (grid.count - 1)
