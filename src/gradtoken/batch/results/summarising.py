"""Statistics over all maps of a run, in one pass that keeps one map for each class in memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from gradtoken.batch.results.read import dataset_errors
from gradtoken.explanation.evidence import evidence_of
from gradtoken.extras import needs

CENTRE = 0.5
"""The centre is this share of the grid's height and of its width, in the middle."""
BORDER = 0.125
"""The border is this share of the grid's height and width on each side."""
COLUMNS = (
    *("index", "id", "source", "sha256", "rank", "target_name", "logit", "probability"),
    *("grid_height", "grid_width", "relevance", "error"),
)
BINS = 40
_ERRORS = 20


class Example(NamedTuple):
    """A prediction and its map as shares of the largest value, (h, w).

    `probability` is NaN where the outputs are not probabilities; the report shows `score` then.
    """

    border: float
    number: int
    id: str
    source: str
    sha256: str
    rank: int
    target: str
    score: float
    probability: float
    tokens: np.ndarray[Any, Any]


@dataclass
class ClassStatistics:
    """Sums over the maps of a class; all but `maps` over those with positive evidence.

    Args:
        maps: number of all maps.
        with_evidence: number of maps with positive evidence (`gradtoken.explanation.evidence`).
        outside: shares of positive relevance outside the centre.
        border: shares of positive relevance in the border.
        tokens: positive relevance (h, w), each map scaled to a sum of one.
    """

    maps: int = 0
    with_evidence: int = 0
    outside: float = 0.0
    border: float = 0.0
    tokens: np.ndarray[Any, Any] | None = None

    def mean(self) -> np.ndarray[Any, Any]:
        """The mean map (h, w) of those with positive evidence."""
        assert self.tokens is not None
        return self.tokens / self.with_evidence


@dataclass
class Statistics:
    """The content of the report.

    Args:
        images: number of images.
        maps: number of maps.
        with_evidence: number of maps with positive evidence; all that follows is over these.
        failed: number of images that could not be explained.
        outside: histogram of the share of positive relevance outside the centre, in `BINS` bins
            from 0 to 1.
        uniform: these shares (outside, border) of a map that is the same everywhere.
        classes: statistics of each class, by its name.
        examples: the most border-driven predictions, most first.
        errors: (id, message) of the first images that failed.
    """

    images: int = 0
    maps: int = 0
    with_evidence: int = 0
    failed: int = 0
    outside: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    uniform: tuple[float, float] = (0.0, 0.0)
    classes: dict[str, ClassStatistics] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)


def summarise(batches: Iterable[Any], examples: int) -> Statistics:
    """Compute the statistics of a run.

    Args:
        batches: record batches of `COLUMNS` in the order of the run, with errors.
        examples: number of predictions to keep. An image's prediction is the most probable of its
            targets (that with the largest logit where there are no probabilities), and is left
            out if its map has no positive evidence.

    Raises:
        DatasetError: the batches are not results of a run.
    """
    statistics = Statistics()
    kept: list[tuple[float, int, Example]] = []
    for table in _whole_images(batches):
        with dataset_errors("the results"):
            _add_table(statistics, table, kept, examples)
    statistics.examples = [example for _, _, example in sorted(kept, key=lambda k: (-k[0], -k[1]))]
    return statistics


def _add_table(
    statistics: Statistics, table: Any, kept: list[tuple[float, int, Example]], examples: int
) -> None:
    """Add rows, all of each image."""
    failed = [row is not None for row in table["error"].to_pylist()]
    statistics.images += len(set(table["index"].to_pylist()))
    statistics.failed += sum(failed)
    for place in np.flatnonzero(failed)[: _ERRORS - len(statistics.errors)]:
        row = table.slice(int(place), 1).to_pylist()[0]
        statistics.errors.append((row["id"], row["error"]))
    for part in _by_grid(table):
        _add(statistics, part, kept, examples)


def _add(
    statistics: Statistics, part: Any, kept: list[tuple[float, int, Example]], examples: int
) -> None:
    """Add maps of one grid size."""
    height, width = part["grid_height"][0].as_py(), part["grid_width"][0].as_py()
    tokens = np.asarray(part["relevance"].combine_chunks().flatten(), dtype=np.float32)
    tokens = tokens.reshape(-1, height, width)
    names = np.array(part["target_name"].to_pylist(), dtype=object)
    for name in names.tolist():
        statistics.classes.setdefault(str(name), ClassStatistics()).maps += 1
    statistics.maps += len(tokens)
    predictions = set(_predictions(part))
    rows = np.flatnonzero(~evidence_of(torch.from_numpy(tokens)).none.numpy())
    predicted = [place for place, row in enumerate(rows.tolist()) if row in predictions]
    part, tokens, names = part.take(rows), tokens[rows], names[rows]
    statistics.with_evidence += len(tokens)
    positive = tokens.clip(min=0).astype(np.float64)
    positive /= positive.sum(axis=(1, 2), keepdims=True)
    areas = 1 - inside((height, width), CENTRE), 1 - inside((height, width), 1 - 2 * BORDER)
    outside, border = ((positive * area).sum(axis=(1, 2)) for area in areas)
    statistics.uniform = float(areas[0].mean()), float(areas[1].mean())
    statistics.outside += np.histogram(outside, BINS, (0, 1 + 1e-9))[0]
    for name in dict.fromkeys(names.tolist()):
        selected = names == name
        of_name = statistics.classes[str(name)]
        of_name.with_evidence += int(selected.sum())
        of_name.outside += float(outside[selected].sum())
        of_name.border += float(border[selected].sum())
        total = positive[selected].sum(axis=0)
        if of_name.tokens is not None:
            total = of_name.tokens + _on_grid(total, of_name.tokens.shape)
        of_name.tokens = total
    _keep(part, predicted, border, tokens, kept, examples)


def _keep(
    part: Any,
    predicted: list[int],
    border: np.ndarray[Any, Any],
    tokens: np.ndarray[Any, Any],
    kept: list[tuple[float, int, Example]],
    examples: int,
) -> None:
    for place in predicted:
        value, index = float(border[place]), -part["index"][place].as_py()
        if len(kept) >= examples and (not kept or (value, index) <= kept[0][:2]):
            continue
        row = part.slice(place, 1).to_pylist()[0]
        probability = row["probability"]
        example = Example(
            border=value,
            number=-index,
            id=row["id"],
            source=row["source"],
            sha256=row["sha256"],
            rank=row["rank"],
            target=row["target_name"],
            score=row["logit"],
            probability=float("nan") if probability is None else probability,
            tokens=tokens[place].copy(),
        )
        heapq.heappush(kept, (value, index, example))
        if len(kept) > examples:
            heapq.heappop(kept)


def _predictions(part: Any) -> list[int]:
    """The row of each image with the largest probability, or logit where there are none."""
    columns = (part[name].to_pylist() for name in ("index", "probability", "logit"))
    best: dict[int, tuple[tuple[float, float], int]] = {}
    for place, (index, probability, score) in enumerate(zip(*columns, strict=True)):
        rank = (-1.0, score) if probability is None else (probability, 0.0)
        if index not in best or rank > best[index][0]:
            best[index] = (rank, place)
    return [place for _, place in best.values()]


def inside(grid: tuple[int, int], share: float) -> np.ndarray[Any, Any]:
    """The share of each token (h, w) inside a box in the middle with this share of each side."""

    def covered(length: int) -> np.ndarray[Any, Any]:
        edges = np.arange(length + 1) / length
        low, high = (1 - share) / 2, (1 + share) / 2
        return (edges[1:].clip(low, high) - edges[:-1].clip(low, high)) * length

    return np.outer(covered(grid[0]), covered(grid[1]))


def _on_grid(tokens: np.ndarray[Any, Any], grid: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """A map resampled to another grid, with the same sum."""
    if tokens.shape == grid:
        return tokens
    rows, columns = (_overlaps(a, b) for a, b in zip(tokens.shape, grid, strict=True))
    return rows @ tokens @ columns.T


def _overlaps(before: int, after: int) -> np.ndarray[Any, Any]:
    """(after, before): the share of each old token that lies in each new one, along one axis."""
    old, new = np.arange(before + 1) / before, np.arange(after + 1) / after
    low = np.maximum(old[None, :-1], new[:-1, None])
    high = np.minimum(old[None, 1:], new[1:, None])
    return (high - low).clip(min=0) * before


def _whole_images(batches: Iterable[Any]) -> Iterator[Any]:
    """Tables that end where an image ends."""
    pa = needs("pyarrow")
    waiting = None
    for batch in batches:
        table = pa.Table.from_batches([batch])
        if waiting is not None:
            table = pa.concat_tables([waiting, table])
        indices = table["index"].to_numpy()
        cut = int(np.searchsorted(indices, indices[-1]))
        waiting = table.slice(cut)
        if cut:
            yield table.slice(0, cut)
    if waiting is not None:
        yield waiting


def _by_grid(table: Any) -> Iterator[Any]:
    """The rows with a map, by the size of their grid."""
    pc = needs("pyarrow.compute")
    maps = table.filter(pc.is_valid(table["relevance"]))
    heights, widths = maps["grid_height"].to_pylist(), maps["grid_width"].to_pylist()
    grids = np.array(list(zip(heights, widths, strict=True))).reshape(-1, 2)
    for grid in np.unique(grids, axis=0):
        yield maps.take(np.flatnonzero((grids == grid).all(axis=1)))
