"""Decoding: from a shard's items to batches of model input, on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from gradtoken.batch.sources.fetch import Content, fetch
from gradtoken.batch.sources.item import Item
from gradtoken.errors import GradTokenError
from gradtoken.images.load_image import load_image
from gradtoken.images.preprocess import Preprocess


@dataclass(frozen=True)
class DecodedImage:
    """One image as model input, or the reason why there is none.

    Args:
        item: where the image is.
        sha256: of its encoded bytes, if they were read.
        size: (width, height) of the image in pixels.
        box: (left, top, right, bottom) of the image that the model's input covers, in pixels.
        pixels: the model's input (C, H, W), float32.
        error: None, or a sentence; then there are no pixels.
    """

    item: Item
    sha256: str | None = None
    size: tuple[int, int] | None = None
    box: tuple[float, ...] | None = None
    pixels: np.ndarray[Any, Any] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Chunk:
    """Consecutive images of a shard that make one batch.

    Args:
        shard: number of the shard.
        number: of the chunk in its shard.
        count: number of chunks in the shard.
        first: number of the chunk's first image in the run.
        images: decoded.
    """

    shard: int
    number: int
    count: int
    first: int
    images: tuple[DecodedImage, ...]


@dataclass(frozen=True)
class Decoder:
    """Reads, decodes and preprocesses images.

    Args:
        preprocess: of the model.
        batch_size: images in each chunk.
        max_pixels: larger images are an error.
        image_column: of Parquet and Hugging Face sources.
        options: for fsspec.
    """

    preprocess: Preprocess
    batch_size: int
    max_pixels: int
    image_column: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __call__(self, shard: int, first: int, items: Sequence[Item]) -> Iterator[Chunk]:
        """Yield the chunks of a shard, in order.

        Args:
            shard: its number.
            first: number of the shard's first image in the run.
            items: of the shard.

        Raises:
            DatasetError: the source cannot be reached.
        """
        contents = fetch(items, self.options, self.image_column)
        count = -(-len(items) // self.batch_size)
        for number in range(count):
            part = islice(contents, self.batch_size)
            images = tuple(self._decode(item, content) for item, content in part)
            yield Chunk(shard, number, count, first + number * self.batch_size, images)

    def _decode(self, item: Item, content: Content) -> DecodedImage:
        if not isinstance(content, bytes):
            return DecodedImage(item, error=str(content))
        digest = hashlib.sha256(content).hexdigest()
        size = None
        try:
            image = load_image(content, max_pixels=self.max_pixels)
            size = image.size
            tensor = self.preprocess(image)
            box = tuple(float(edge) for edge in self.preprocess.box(size))
        except GradTokenError as error:
            return DecodedImage(item, digest, size, error=str(error))
        return DecodedImage(item, digest, size, box, tensor.numpy())
