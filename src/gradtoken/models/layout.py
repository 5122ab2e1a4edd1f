"""Prefix, readout and spatial tokens of a model."""

from __future__ import annotations

from dataclasses import dataclass

from gradtoken.errors import ModelError


@dataclass(frozen=True)
class TokenLayout:
    """How the token sequence of a Vision Transformer is laid out.

    Args:
        patch: (height, width) of a patch in input pixels; None where the grid is to be inferred
            from the number of tokens and the shape of the input.
        prefix: tokens before the spatial ones (class token, registers); never part of a map.
        readout: positions of the tokens the head reads, the first ones of the sequence: 0 for a
            class token, (0, 1) for class and distillation token, () where the head reads none.
        pool: first of the tokens that the head averages (with all after it), or None.
        grid: rows and columns of spatial tokens, where it is not input size over patch size.
    """

    patch: tuple[int, int] | None
    prefix: int = 1
    readout: int | tuple[int, ...] = 0
    pool: int | None = None
    grid: tuple[int, int] | None = None

    @property
    def rows(self) -> tuple[int, ...]:
        """`readout` as a tuple."""
        return (self.readout,) if isinstance(self.readout, int) else tuple(self.readout)

    def grid_for(self, size: tuple[int, int], tokens: int) -> tuple[int, int]:
        """The token grid (h, w) of an input of `size` (height, width) pixels.

        Raises:
            ModelError: if the model made another number of tokens.
        """
        spatial = tokens - self.prefix
        if self.grid is None and self.patch is None:
            return infer_grid(size, spatial)
        grid = self.grid or _patches(size, self.patch)
        if grid[0] * grid[1] != spatial:
            raise ModelError(
                f"the model made {tokens} tokens of a {size[1]}x{size[0]} input, but the layout "
                f"says {self.prefix} prefix tokens and a {grid[0]}x{grid[1]} grid; pass "
                "wrap(…, layout=TokenLayout(patch=…, prefix=…, grid=…))."
            )
        return grid


def _patches(size: tuple[int, int], patch: tuple[int, int] | None) -> tuple[int, int]:
    assert patch is not None
    return size[0] // patch[0], size[1] // patch[1]


def infer_grid(size: tuple[int, int], count: int) -> tuple[int, int]:
    """Rows and columns of `count` tokens that cover an input of `size` (height, width) pixels.

    Raises:
        ModelError: if no grid of so many tokens has nearly the input's shape.
    """
    grids = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    if grids:
        best = min(grids, key=lambda grid: abs(grid[0] * size[1] - grid[1] * size[0]))
        if 0.8 < (best[0] * size[1]) / (best[1] * size[0]) < 1.25:
            return best
    raise ModelError(
        f"{count} spatial tokens make no grid of the shape of a {size[1]}x{size[0]} input; pass "
        "wrap(…, layout=TokenLayout(patch=…, prefix=…, grid=…))."
    )
