"""Which of a model's tokens are what."""

from __future__ import annotations

from dataclasses import dataclass

from gradtoken.errors import ModelError


@dataclass(frozen=True)
class TokenLayout:
    """How the token sequence of a Vision Transformer is laid out.

    Args:
        patch: (height, width) of a patch in input pixels.
        prefix: tokens before the spatial ones (class token, registers); never part of a map.
        readout: position of the token the head reads (the class token).
        grid: rows and columns of spatial tokens, where it is not input size over patch size.
    """

    patch: tuple[int, int]
    prefix: int = 1
    readout: int = 0
    grid: tuple[int, int] | None = None

    def grid_for(self, size: tuple[int, int], tokens: int) -> tuple[int, int]:
        """The token grid (h, w) of an input of `size` (height, width) pixels.

        Raises:
            ModelError: if the model made another number of tokens.
        """
        grid = self.grid or (size[0] // self.patch[0], size[1] // self.patch[1])
        if self.prefix + grid[0] * grid[1] != tokens:
            raise ModelError(
                f"the model made {tokens} tokens of a {size[1]}x{size[0]} input, but the layout "
                f"says {self.prefix} prefix tokens and a {grid[0]}x{grid[1]} grid; pass "
                "wrap(…, layout=TokenLayout(patch=…, prefix=…, grid=…))."
            )
        return grid
