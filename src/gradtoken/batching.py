"""Batches of images, of a size whose traces fit into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gradtoken.errors import ImageError
from gradtoken.images.inputs import Input, Inputs
from gradtoken.images.source import Source
from gradtoken.models.model import Model
from gradtoken.trace.trace import Trace

T = TypeVar("T")

FIRST_SIZE = 4
"""Images in the first batch, which measures the memory of an image."""

_MAX_SIZE = 256

CPU_BUDGET = 96 << 20
"""Bytes that a batch's trace may keep on a CPU, where larger batches are no faster."""

_GPU_SHARE = 0.25
"""The share of a GPU's free memory for a trace; the rest is for activations and gradients."""

MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Batch:
    """Consecutive images: their positions, their origins, and the model's inputs (C, H, W)."""

    indices: list[int]
    sources: list[Source]
    tensors: list[Tensor]

    def pixels(self, model: Model) -> Tensor:
        """The batch (B, C, H, W) on the model's device."""
        stacked = torch.stack(self.tensors)
        if model.device.type == "cuda" and stacked.device.type == "cpu":
            return stacked.pin_memory().to(model.device, model.dtype, non_blocking=True)
        return stacked.to(model.device, model.dtype)

    @property
    def shape(self) -> torch.Size:
        """The shape (C, H, W) of each tensor."""
        return self.tensors[0].shape

    def add(self, index: int, item: Input) -> None:
        """Append an image."""
        self.indices.append(index)
        self.sources.append(item.source)
        self.tensors.append(item.tensor)

    def halves(self) -> tuple[Batch, Batch]:
        """The first and the second half."""
        middle = len(self.indices) // 2
        return self._part(slice(0, middle)), self._part(slice(middle, None))

    def _part(self, part: slice) -> Batch:
        return Batch(self.indices[part], self.sources[part], self.tensors[part])


class BatchSize:
    """The number of images in a batch.

    Args:
        requested: a number, or "auto" for what fits by the memory of the images so far.

    Raises:
        ImageError: it is neither.
    """

    def __init__(self, requested: int | str) -> None:
        if requested != "auto" and (type(requested) is not int or requested < 1):
            raise ImageError(
                f'batch_size is {requested!r}; it must be "auto" or a number from 1 up.'
            )
        self.automatic = requested == "auto"
        self.current = FIRST_SIZE if isinstance(requested, str) else requested

    def adapt(self, trace: Trace) -> None:
        """Set the size of the batches that follow, unless a number was requested."""
        if self.automatic:
            device = trace.model.device
            budget = int(_GPU_SHARE * free_bytes(device)) if device.type == "cuda" else CPU_BUDGET
            per_image = max(kept_bytes(trace) // len(trace.images), 1)
            self.current = min(max(budget // per_image, 1), _MAX_SIZE)


def batches(
    inputs: Inputs,
    size: BatchSize,
    *,
    one_shape: bool,
    on_error: Callable[[int, ImageError], None] | None,
) -> Iterator[Batch]:
    """Inputs of one shape in batches; an input of another shape begins a new batch.

    Args:
        inputs: of the model.
        size: of the batches; it may change between them.
        one_shape: whether another shape is an error.
        on_error: called with the position and the error of each image that cannot be read, which
            is then left out.

    Raises:
        ImageError: of the first image that cannot be read, without `on_error`.
    """
    batch, shape = Batch([], [], []), None
    for index, item in enumerate(inputs):
        if isinstance(item, ImageError):
            if on_error is None:
                raise item
            on_error(index, item)
            continue
        if one_shape and shape is not None and item.tensor.shape != shape:
            raise ImageError(
                f"the inputs have different shapes ({tuple(shape)}, {tuple(item.tensor.shape)}) "
                "and cannot be one result; take them image by image with explain_each()."
            )
        shape = item.tensor.shape
        if batch.indices and shape != batch.shape:
            yield batch
            batch = Batch([], [], [])
        batch.add(index, item)
        if len(batch.indices) >= size.current:
            yield batch
            batch = Batch([], [], [])
    if batch.indices:
        yield batch


def read_batch(model: Model, images: Any) -> tuple[list[Source], Tensor]:
    """Images of any supported type as a preprocessed batch (B, C, H, W), with their sources.

    Raises:
        ImageError: of the first image that cannot be read.
    """
    batch = Batch([], [], [])
    for index, item in enumerate(Inputs(model.preprocess, images)):
        if isinstance(item, ImageError):
            raise item
        batch.add(index, item)
    return batch.sources, batch.pixels(model)


def run_fitting(batch: Batch, size: BatchSize, run: Callable[[Batch], T]) -> Iterator[T]:
    """The result of a batch, or the results of its halves where it does not fit into memory.

    Raises:
        OutOfMemoryError: a single image does not fit, or a batch of a requested size.
    """
    try:
        result = run(batch)
    except torch.OutOfMemoryError:
        if not size.automatic or len(batch.indices) == 1:
            raise
        size.current = len(batch.indices) // 2
    else:
        yield result
        return
    for half in batch.halves():
        yield from run_fitting(half, size, run)


def kept_bytes(trace: Trace) -> int:
    """Bytes that a trace keeps of its forward's attention calls."""
    calls = [call for backbone in trace.backbones for call in backbone.calls]
    parts = (p for call in calls for p in (call.query, call.key, call.value, call.output))
    storages = [part.untyped_storage() for part in parts if part is not None]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def free_bytes(device: torch.device) -> int:
    """Bytes that are free on a device, including those that torch holds in reserve."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if MEMINFO.exists():
        lines = (line.split() for line in MEMINFO.read_text().splitlines())
        return 1024 * next(int(line[1]) for line in lines if line[0] == "MemAvailable:")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
