"""From a shard's items to batches of model input, on a processor, beside the models at work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from gradtoken.batch.sources.fetch import Found, fetch
from gradtoken.batch.sources.item import Item
from gradtoken.errors import GradTokenError
from gradtoken.images.load_image import load_image
from gradtoken.images.preprocess import Preprocess


@dataclass(frozen=True)
class Entry:
    """One picture, ready for the model, or the sentence that says why it is not.

    Args:
        item: where it is from.
        sha256: of its file's bytes, where they were read.
        size: (width, height) in pixels.
        box: what of it the model's input covers.
        pixels: (C, H, W) float32.
        error: None or a sentence.
    """

    item: Item
    sha256: str | None = None
    size: tuple[int, int] | None = None
    box: tuple[float, ...] | None = None
    pixels: np.ndarray[Any, Any] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Chunk:
    """Consecutive pictures of a shard that go through the model together.

    Args:
        shard: the shard's number.
        number: the chunk's in the shard.
        count: of chunks in the shard.
        first: the number of its first picture in the run.
    """

    shard: int
    number: int
    count: int
    first: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Decoder:
    """Reads and prepares pictures for a model."""

    preprocess: Preprocess
    batch_size: int
    max_pixels: int
    image_column: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __call__(self, shard: int, first: int, items: Sequence[Item]) -> Iterator[Chunk]:
        """The chunks of a shard, in order.

        Args:
            first: the number of the shard's first picture in the run.

        Raises:
            DatasetError: if the place where the pictures are does not answer.
        """
        found = fetch(items, self.options, self.image_column)
        count = -(-len(items) // self.batch_size)
        for number in range(count):
            part = islice(found, self.batch_size)
            entries = tuple(self._entry(item, content) for item, content in part)
            yield Chunk(shard, number, count, first + number * self.batch_size, entries)

    def _entry(self, item: Item, content: Found) -> Entry:
        if not isinstance(content, bytes):
            return Entry(item, error=_sentence(content))
        digest = hashlib.sha256(content).hexdigest()
        size = None
        try:
            picture = load_image(content, max_pixels=self.max_pixels)
            size = picture.size
            tensor = self.preprocess(picture)
            box = tuple(float(edge) for edge in self.preprocess.box(size))
        except GradTokenError as error:
            return Entry(item, digest, size, error=_sentence(error))
        return Entry(item, digest, size, box, tensor.numpy())


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())
