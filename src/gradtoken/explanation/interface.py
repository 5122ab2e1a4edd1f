"""The interface of an explanation that figures and files use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gradtoken.explanation import style as display
from gradtoken.images.box import Box
from gradtoken.images.source import Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ExplanationLike(Protocol):
    """The members of `Explanation` that figures and files read; see there."""

    @property
    def tokens(self) -> Float[Tensor, "batch targets h w"]: ...

    @property
    def labels(self) -> list[list[str]]: ...

    @property
    def scores(self) -> Float[Tensor, "batch targets"]: ...

    @property
    def probabilities(self) -> Float[Tensor, "batch targets"]: ...

    @property
    def sources(self) -> Sequence[Source]: ...

    @property
    def about(self) -> dict[str, Any]: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[ExplanationLike]: ...

    def position(self, k: int | str, image: int = 0) -> int: ...

    def laid_out(
        self, k: int | str = 0, *, image: int = 0, style: display.Style | None = None
    ) -> tuple[Image.Image, np.ndarray[Any, Any], Box]: ...

    def overlay(
        self, k: int | str = 0, *, image: int = 0, style: display.Style | None = None
    ) -> Image.Image: ...

    def figure(self, *, style: display.Style | None = None) -> Figure: ...

    def to_dict(self) -> list[dict[str, Any]]: ...
