"""The grid pointing game on a data set: four of its images as one, each of another class."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution import Method
from gradtoken.bench.cases import Case
from gradtoken.bench.identity import sample_sha256
from gradtoken.bench.maps import maps_of
from gradtoken.bench.records import FAILED, Record
from gradtoken.bench.store import Stamp, Store
from gradtoken.errors import FAILURES
from gradtoken.metrics.grid_pointing import grid_pointing, mosaic
from gradtoken.models.model import Model
from gradtoken.trace.record import record

GRID_POINTING = "grid-pointing"
"""The name of the group."""
_SIDE = 2


@dataclass(frozen=True, eq=False)
class Cell:
    """An image in a mosaic.

    Args:
        id: of the image.
        sha256: of the image and its annotations.
        class_id: its leading class.
        name: of the class.
        pixels: as the model takes them.
    """

    id: str
    sha256: str
    class_id: int
    name: str
    pixels: Float[Tensor, "1 channels height width"]


Cells: TypeAlias = tuple[Cell, ...]


def measure_mosaics(
    model: Model,
    methods: Mapping[str, Method],
    found: Iterable[Case],
    store: Store,
    run: str,
    count: int,
) -> list[str]:
    """Measure the first mosaics of a data set that are not in the store yet.

    Args:
        model: to be explained.
        methods: by the names they get in the records; slow ones are left out.
        found: the images that count, in order.
        store: where the records are kept, one file for each mosaic.
        run: fingerprint of the run.
        count: how many mosaics are measured.

    Returns:
        The ids of the mosaics in the store.

    Raises:
        OutputError: if the store holds records of another run or other images.
    """
    measured: list[str] = []
    if count < 1:
        return measured
    for cells in mosaics(found):
        name = "mosaic of " + ", ".join(cell.id for cell in cells)
        pictures = "".join(cell.sha256 for cell in cells)
        stamp = Stamp(run, hashlib.sha256(pictures.encode()).hexdigest())
        if not store.done(name, stamp):
            store.add(name, list(_records(model, methods, cells, name)), stamp)
        measured.append(name)
        if len(measured) == count:
            break
    return measured


def mosaics(found: Iterable[Case]) -> Iterator[Cells]:
    """Fours of images of different classes, each image in the first that it fits into."""
    waiting: list[list[Cell]] = []
    for case in found:
        cell = _cell(case)
        fitting = (cells for cells in waiting if cell.class_id not in {c.class_id for c in cells})
        cells = next(fitting, None)
        if cells is None:
            cells = []
            waiting.append(cells)
        cells.append(cell)
        if len(cells) == _SIDE**2:
            waiting.remove(cells)
            yield tuple(cells)


def _cell(case: Case) -> Cell:
    leading = case.leading
    digest = sample_sha256(case.sample)
    name = case.names[leading]
    return Cell(case.sample.id, digest, case.classes[leading], name, case.pixels)


def _records(
    model: Model, methods: Mapping[str, Method], cells: Cells, name: str
) -> Iterator[Record]:
    size = (cells[0].pixels.shape[-2], cells[0].pixels.shape[-1])
    trace = record(model, mosaic(torch.cat([cell.pixels for cell in cells]), size))
    for method_name, method in methods.items():
        if method.slow:
            continue
        try:
            maps = maps_of(method, trace, [cell.class_id for cell in cells])
            values = grid_pointing(trace.patch_grid.enlarge(maps), _SIDE)
        except FAILURES as error:
            yield Record(name, "", method_name, f"{FAILED}{GRID_POINTING}", math.nan, str(error))
            continue
        for cell, value in zip(cells, values.tolist(), strict=True):
            yield Record(name, cell.name, method_name, "grid_pointing", value)
