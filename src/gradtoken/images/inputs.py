"""Decoding and preprocessing of a user's images, in this process or in workers."""

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
from gradtoken.images.load_image import FILE_CHANNELS
from gradtoken.images.preprocess import Preprocess, check_tensor
from gradtoken.images.source import Source

MAX_IN_MEMORY = 32
"""Longer lists are decoded by workers, and their images are decoded again when they are shown."""

_MAX_WORKERS = 8

_SINGLE = (str, bytes, bytearray, memoryview)
"""Sequences that are a single image."""


@dataclass(frozen=True)
class Input:
    """An image and the model's input made of it."""

    source: Source
    tensor: Float[Tensor, "channels height width"]


class Inputs:
    """A user's images, in order; iterating decodes and preprocesses them.

    An image that cannot be read is an `ImageError` in its place.

    Args:
        preprocess: the model's.
        images: see `explain`.
        workers: processes that decode and preprocess; None is `default_workers`.

    Raises:
        ImageError: there is no image, or a tensor that is no preprocessed batch.
    """

    def __init__(self, preprocess: Preprocess, images: Any, *, workers: int | None = 0) -> None:
        self._preprocess = preprocess
        self._items = _as_items(images, preprocess.depth)
        if not self._items:
            raise ImageError("the list of images is empty; give at least one.")
        if workers is not None and (type(workers) is not int or workers < 0):
            raise ImageError(f"workers is {workers!r}; it must be None or a number from 0 up.")
        encoded = sum(not isinstance(item, Tensor) for item in self._items)
        requested = default_workers(encoded) if workers is None else workers
        self.workers = requested if encoded else 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Input | ImageError]:
        if not self.workers and len(self) <= MAX_IN_MEMORY:
            for item in self._items:
                yield self._read(item)
            return
        loader = DataLoader(
            _Decoded(self._preprocess, self._items),
            batch_size=None,
            num_workers=self.workers,
            collate_fn=_identity,
            generator=torch.Generator(),
        )
        for item, decoded in zip(self._items, loader, strict=True):
            if isinstance(item, Tensor):
                yield self._read(item)
            elif isinstance(decoded, ImageError):
                yield decoded
            else:
                tensor, size, sha256 = decoded
                if _is_array_of_channels(self._preprocess, item):
                    yield Input(Source.from_array(self._preprocess, item), tensor)
                else:
                    yield Input(Source.deferred(item, size, sha256), tensor)

    def _read(self, item: Any) -> Input | ImageError:
        if isinstance(item, Tensor):
            return Input(Source.from_tensor(self._preprocess, item), item)
        return _decode(self._preprocess, item)


class _Decoded(Dataset[Any]):
    """The results of a worker, for each image: the tensor, the image's size and its SHA-256."""

    def __init__(self, preprocess: Preprocess, items: Sequence[Any]) -> None:
        self._preprocess = preprocess
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        item = self._items[index]
        if isinstance(item, Tensor):
            return None
        decoded = _decode(self._preprocess, item)
        if isinstance(decoded, ImageError):
            return decoded
        return decoded.tensor, decoded.source.size, decoded.source.file_sha256


def default_workers(count: int) -> int:
    """The number of workers for so many images.

    It is 0 for few images, and where processes are not forked: each would import everything anew.
    """
    if count <= MAX_IN_MEMORY or multiprocessing.get_start_method() != "fork":
        return 0
    return min(_MAX_WORKERS, len(os.sched_getaffinity(0)))


def _decode(preprocess: Preprocess, item: Any) -> Input | ImageError:
    try:
        if _is_array_of_channels(preprocess, item):
            source = Source.from_array(preprocess, item)
            return Input(source, preprocess(as_channels(item, preprocess.depth)))
        source = Source.read(item)
        return Input(source, preprocess(source.image))
    except ImageError as error:
        return error


def _is_array_of_channels(preprocess: Preprocess, item: Any) -> bool:
    """Whether an array holds channels other than a file's, or the model takes no files."""
    if not isinstance(item, np.ndarray):
        return False
    return not preprocess.takes_images or (item.ndim == 3 and item.shape[-1] not in FILE_CHANNELS)


def _identity(row: Any) -> Any:
    return row


def _as_items(images: Any, channels: int) -> list[Any]:
    """An item for each image: paths, bytes, PIL images, arrays and tensors (C, H, W)."""
    if isinstance(images, Tensor):
        return list(check_tensor(images, channels))
    if not isinstance(images, Sequence) or isinstance(images, _SINGLE):
        return [images]
    items: list[Any] = []
    for item in images:
        items += list(check_tensor(item, channels)) if isinstance(item, Tensor) else [item]
    return items
