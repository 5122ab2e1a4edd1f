"""What every data set gives: a picture, and what is known to be in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool
from PIL import Image


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture of a data set.

    Args:
        id: names it for good, so that an interrupted run finds it again.
        image: RGB and upright, as `gradtoken.images.load_image.load_image` gives it.
        names: the class of each mask (or what is in the picture, where there are no masks).
        masks: (n, height, width) of the picture, the visible pixels of each; None without masks.
        ignore: (height, width), pixels that count for nothing; None if all count.
        label: the picture's one class as the id of a model trained on the data set.
        classes: of how many classes `label` is one; None where that is not known.
        unnamed: whether `masks` is of an object whose class is not told.
    """

    id: str
    image: Image.Image
    names: tuple[str, ...] = ()
    masks: Bool[np.ndarray, "n height width"] | None = None
    ignore: Bool[np.ndarray, "height width"] | None = None
    label: int | None = None
    unnamed: bool = False
    classes: int | None = None


class Samples(ABC):
    """A data set: so many samples, each read when it is asked for."""

    kind: ClassVar[str]
    """Its name on the command line."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every class name, of a data set that has names of its own; a model's class of the same
        name can then mean something else. None where names are meant as the model's."""
        return ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            DatasetError: if its files cannot be read.
        """

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self)):
            yield self[index]

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return index
