"""Samples: images with their annotations, as every data set gives them."""

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
    """One image of a data set.

    Args:
        id: identifies the image; the same each time the data set is read, so that a run resumes.
        image: RGB and upright, as `gradtoken.images.load_image` gives it.
        names: the class of each mask (of the image, where there are no masks).
        masks: (n, height, width) of the image, the visible pixels of each object; None without
            masks.
        ignore: (height, width), pixels to ignore; None if all count.
        label: the image's class, as an id of a model trained on the data set.
        unnamed: whether `masks` is of an object of unknown class.
        classes: the number of classes that `label` is an id of; None where that is not known.
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
    """A data set: a sequence of samples, each read when it is accessed."""

    kind: ClassVar[str]
    """Its name on the command line."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every class name of a data set whose names have meanings of their own, so that a model's
        class of the same name can mean something else; empty where names mean the model's.
        """
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

    def checked_index(self, index: int) -> int:
        """An index of one of the samples, for `__getitem__` to begin with.

        Args:
            index: from 0 up.

        Raises:
            IndexError: there is no such sample, which ends a `for` loop.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return index
