"""Where on each picture the model looked, found out when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradtoken.geometry import Box
from gradtoken.preprocess import Preprocess
from gradtoken.sources import Source


class Boxes(Sequence[Box]):
    """The part of each picture that a preprocessing makes the model's input of.

    Raises:
        ImageError: when a box is asked for, if the preprocessing is no fixed resize and crop.
    """

    def __init__(self, preprocess: Preprocess, sources: Sequence[Source]) -> None:
        self._preprocess = preprocess
        self._sources = sources

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Boxes(self._preprocess, self._sources[index])
        source = self._sources[index]
        if source.kind == "tensor":
            return Box(0.0, 0.0, float(source.size[0]), float(source.size[1]))
        return self._preprocess.box(source.size)
