"""From what a user gives to the model's inputs: decoding and preprocessing, also in workers."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gradtoken.errors import ImageError
from gradtoken.images.channels import as_channels
from gradtoken.images.load_image import OF_FILES
from gradtoken.images.preprocess import Preprocess, check_tensor
from gradtoken.images.source import Source

_MANY = 32
"""More pictures than this are decoded by workers, and decoded again when they are to be shown."""

_MOST_WORKERS = 8

_ONE = (str, bytes, bytearray, memoryview)
"""Sequences that are one picture."""


@dataclass(frozen=True)
class Input:
    """One picture and what the model gets of it."""

    source: Source
    tensor: Float[Tensor, "channels height width"]


class Inputs:
    """Pictures in a user's order; iterating decodes and preprocesses them, or raises `ImageError`.

    Args:
        preprocess: the model's.
        images: see `explain`.
        workers: processes that decode and preprocess; None for as many as help.

    Raises:
        ImageError: no picture, or a tensor that is no preprocessed batch.
    """

    def __init__(self, preprocess: Preprocess, images: Any, *, workers: int | None = 0) -> None:
        self._preprocess = preprocess
        self._items = _listed(images, preprocess.depth)
        if not self._items:
            raise ImageError("the list of pictures is empty; give at least one.")
        if workers is not None and (type(workers) is not int or workers < 0):
            raise ImageError(f"workers is {workers!r}; it must be None or a number from 0 up.")
        decoded = sum(not isinstance(item, Tensor) for item in self._items)
        asked = _helpful(decoded) if workers is None else workers
        self._workers = asked if decoded else 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Input | ImageError]:
        if not self._workers and len(self) <= _MANY:
            for item in self._items:
                yield self._now(item)
            return
        loader = DataLoader(
            _Rows(self._preprocess, self._items),
            batch_size=None,
            num_workers=self._workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),
        )
        for item, made in zip(self._items, loader, strict=True):
            if isinstance(item, Tensor):
                yield self._now(item)
            elif isinstance(made, ImageError):
                yield made
            else:
                tensor, size, sha256 = made
                if _is_deep(self._preprocess, item):
                    yield Input(Source.of_array(self._preprocess, item), tensor)
                else:
                    yield Input(Source.later(item, size, sha256), tensor)

    def _now(self, item: Any) -> Input | ImageError:
        if isinstance(item, Tensor):
            return Input(Source.shown(self._preprocess, item), item)
        return _read(self._preprocess, item)


class _Rows(Dataset[Any]):
    """What a worker makes of a picture: the tensor, its size and its file's fingerprint."""

    def __init__(self, preprocess: Preprocess, items: Sequence[Any]) -> None:
        self._preprocess = preprocess
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        item = self._items[index]
        if isinstance(item, Tensor):
            return None
        made = _read(self._preprocess, item)
        if isinstance(made, ImageError):
            return made
        return made.tensor, made.source.size, made.source.file_sha256


def _read(preprocess: Preprocess, item: Any) -> Input | ImageError:
    try:
        if _is_deep(preprocess, item):
            source = Source.of_array(preprocess, item)
            return Input(source, preprocess(as_channels(item, preprocess.depth)))
        source = Source.read(item)
        return Input(source, preprocess(source.picture))
    except ImageError as error:
        return error


def _is_deep(preprocess: Preprocess, item: Any) -> bool:
    """Whether an array is no image as files hold it, or the model takes none such."""
    if not isinstance(item, np.ndarray):
        return False
    return not preprocess.takes_images or (item.ndim == 3 and item.shape[-1] not in OF_FILES)


def _as_it_is(row: Any) -> Any:
    return row


def _listed(images: Any, channels: int) -> list[Any]:
    """One item for each picture: paths, bytes, PIL images, arrays and tensors (C, H, W)."""
    if isinstance(images, Tensor):
        return list(check_tensor(images, channels))
    if not isinstance(images, Sequence) or isinstance(images, _ONE):
        return [images]
    items: list[Any] = []
    for item in images:
        items += list(check_tensor(item, channels)) if isinstance(item, Tensor) else [item]
    return items


def _helpful(count: int) -> int:
    """How many workers help: none for few pictures, or where each would import everything anew."""
    if count <= _MANY or multiprocessing.get_start_method() != "fork":
        return 0
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
