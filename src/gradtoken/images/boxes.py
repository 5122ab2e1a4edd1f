"""Where on each image its tokens lie, found out when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradtoken.images.crop_box import Box
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.images.preprocess import Preprocess
from gradtoken.images.source import Source


class Boxes(Sequence[Box]):
    """The part of each image that the grid of spatial tokens covers.

    That is the part that the preprocessing makes the model's input of, but for pixels at the edges
    that belong to no token.

    Args:
        preprocess: the model's.
        sources: the images.
        grid: the tokens that the model makes of its input.

    Raises:
        ImageError: when a box is needed, if the preprocessing is no fixed resize and crop.
    """

    def __init__(self, preprocess: Preprocess, sources: Sequence[Source], grid: PatchGrid) -> None:
        self._preprocess = preprocess
        self._sources = sources
        self.grid = grid

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Boxes(self._preprocess, self._sources[index], self.grid)
        source = self._sources[index]
        if source.kind == "tensor":
            return self.grid.on(Box(0.0, 0.0, float(source.size[0]), float(source.size[1])))
        return self.grid.on(self._preprocess.box(source.size))
