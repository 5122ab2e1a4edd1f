"""How many pictures go through the model at once, so that what they keep fits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from gradtoken.errors import ImageError
from gradtoken.images.inputs import Input, Inputs
from gradtoken.images.source import Source
from gradtoken.models.model import Model
from gradtoken.trace.trace import Trace

T = TypeVar("T")

_FIRST = 4
"""Pictures in the first batch, which shows what one needs."""

_MOST = 256

_CPU_BYTES = 96 << 20
"""What a batch's forward may keep on a CPU, where larger batches are no faster."""

_GPU_SHARE = 0.25
"""The share of a GPU's free memory for the same; activations and gradients take the rest."""

MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Batch:
    """Some pictures in a row: their positions, where they are from, and the model's input."""

    at: list[int]
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
        """That of each tensor, (C, H, W)."""
        return self.tensors[0].shape

    def add(self, index: int, item: Input) -> None:
        """One more picture."""
        self.at.append(index)
        self.sources.append(item.source)
        self.tensors.append(item.tensor)

    def halves(self) -> tuple[Batch, Batch]:
        """The first and the second half."""
        middle = len(self.at) // 2
        return self._part(slice(0, middle)), self._part(slice(middle, None))

    def _part(self, some: slice) -> Batch:
        return Batch(self.at[some], self.sources[some], self.tensors[some])


class BatchSize:
    """A number of pictures, or "auto": what fits, judged by what the first ones kept.

    Raises:
        ImageError: if it is neither.
    """

    def __init__(self, asked: int | str) -> None:
        if asked != "auto" and (type(asked) is not int or asked < 1):
            raise ImageError(f'batch_size is {asked!r}; it must be "auto" or a number from 1 up.')
        self.automatic = asked == "auto"
        self.now = _FIRST if isinstance(asked, str) else asked

    def judge(self, trace: Trace) -> None:
        """Choose the size of the batches that follow."""
        if self.automatic:
            device = trace.model.device
            budget = int(_GPU_SHARE * free_bytes(device)) if device.type == "cuda" else _CPU_BYTES
            each = max(kept_bytes(trace) // len(trace.images), 1)
            self.now = min(max(budget // each, 1), _MOST)


def batches(
    inputs: Inputs,
    size: BatchSize,
    *,
    one_shape: bool,
    on_error: Callable[[int, ImageError], None] | None,
) -> Iterator[Batch]:
    """Inputs of one shape in batches; a picture of another shape begins a new one.

    Args:
        one_shape: whether another shape is an error.
        on_error: told of each picture that cannot be read, which is then left out.

    Raises:
        ImageError: of the first picture that cannot be read, where nobody is told.
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
                "and cannot be one result; take them picture by picture with explain_each()."
            )
        shape = item.tensor.shape
        if batch.at and shape != batch.shape:
            yield batch
            batch = Batch([], [], [])
        batch.add(index, item)
        if len(batch.at) >= size.now:
            yield batch
            batch = Batch([], [], [])
    if batch.at:
        yield batch


def run_fitting(batch: Batch, size: BatchSize, run: Callable[[Batch], T]) -> Iterator[T]:
    """What `run` makes of a batch; of its halves, where it does not fit and the size is ours."""
    try:
        done = run(batch)
    except torch.OutOfMemoryError:
        if not size.automatic or len(batch.at) == 1:
            raise
        size.now = len(batch.at) // 2
    else:
        yield done
        return
    for half in batch.halves():
        yield from run_fitting(half, size, run)


def kept_bytes(trace: Trace) -> int:
    """Bytes that a trace keeps of its forward's attention calls."""
    calls = [call for one in trace.backbones for call in one.calls]
    parts = (p for call in calls for p in (call.query, call.key, call.value, call.output))
    storages = [part.untyped_storage() for part in parts if part is not None]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be had on a device, what torch holds in reserve included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if MEMINFO.exists():
        lines = (line.split() for line in MEMINFO.read_text().splitlines())
        return 1024 * next(int(line[1]) for line in lines if line[0] == "MemAvailable:")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
