"""What many maps say together, in one pass that holds a few rows and one map for each class."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from gradtoken.batch.damage import damage
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

    `probability` is NaN where the outputs are no probabilities; then `score` is to be shown.
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
class ClassFigures:
    """Sums over one class's maps; all but `maps` over those with positive evidence.

    Args:
        maps: all of them.
        weighed: those with positive evidence (`gradtoken.explanation.evidence`).
        outside: of their positive relevance, what lies outside the centre.
        border: of their positive relevance, what lies in the border.
        tokens: their maps (h, w), each with its positive relevance scaled to a sum of one.
    """

    maps: int = 0
    weighed: int = 0
    outside: float = 0.0
    border: float = 0.0
    tokens: np.ndarray[Any, Any] | None = None

    def mean(self) -> np.ndarray[Any, Any]:
        """The mean map (h, w) of those with positive evidence."""
        assert self.tokens is not None
        return self.tokens / self.weighed


@dataclass
class Figures:
    """What the report shows.

    Args:
        pictures: number of images.
        maps: number of maps.
        weighed: number of maps with positive evidence; the others count for nothing that follows.
        failed: number of images that could not be read.
        outside: of maps, the positive relevance outside the centre, in `BINS` bins from 0 to 1.
        uniform: (outside, border) of a map that is the same everywhere.
        classes: figures by name.
        examples: the most border-driven predictions, most first.
        errors: (id, sentence) of the first pictures that failed.
    """

    pictures: int = 0
    maps: int = 0
    weighed: int = 0
    failed: int = 0
    outside: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    uniform: tuple[float, float] = (0.0, 0.0)
    classes: dict[str, ClassFigures] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)


def summarise(batches: Iterable[Any], examples: int) -> Figures:
    """Go through rows once.

    Args:
        batches: record batches of `COLUMNS` in the order of the run, with errors.
        examples: how many predictions to keep. A picture's prediction is the most probable of its
            targets (the one with the largest score where outputs are no probabilities), and is
            left out where its map has no positive evidence.

    Raises:
        DatasetError: if they are no results.
    """
    figures = Figures()
    kept: list[tuple[float, int, Example]] = []
    for table in _whole_pictures(batches):
        with damage("the results"):
            _add_table(figures, table, kept, examples)
    figures.examples = [example for _, _, example in sorted(kept, key=lambda k: (-k[0], -k[1]))]
    return figures


def _add_table(
    figures: Figures, table: Any, kept: list[tuple[float, int, Example]], examples: int
) -> None:
    """Rows of whole pictures."""
    failed = [row is not None for row in table["error"].to_pylist()]
    figures.pictures += len(set(table["index"].to_pylist()))
    figures.failed += sum(failed)
    for place in np.flatnonzero(failed)[: _ERRORS - len(figures.errors)]:
        row = table.slice(int(place), 1).to_pylist()[0]
        figures.errors.append((row["id"], row["error"]))
    for part in _by_grid(table):
        _add(figures, part, kept, examples)


def _add(
    figures: Figures, part: Any, kept: list[tuple[float, int, Example]], examples: int
) -> None:
    """Rows of one grid."""
    height, width = part["grid_height"][0].as_py(), part["grid_width"][0].as_py()
    tokens = np.asarray(part["relevance"].combine_chunks().flatten(), dtype=np.float32)
    tokens = tokens.reshape(-1, height, width)
    names = np.array(part["target_name"].to_pylist(), dtype=object)
    for name in names.tolist():
        figures.classes.setdefault(str(name), ClassFigures()).maps += 1
    figures.maps += len(tokens)
    predictions = set(_predictions(part))
    rows = np.flatnonzero(~evidence_of(torch.from_numpy(tokens)).none.numpy())
    predicted = [place for place, row in enumerate(rows.tolist()) if row in predictions]
    part, tokens, names = part.take(rows), tokens[rows], names[rows]
    figures.weighed += len(tokens)
    positive = tokens.clip(min=0).astype(np.float64)
    positive /= positive.sum(axis=(1, 2), keepdims=True)
    areas = 1 - inside((height, width), CENTRE), 1 - inside((height, width), 1 - 2 * BORDER)
    outside, border = ((positive * area).sum(axis=(1, 2)) for area in areas)
    figures.uniform = float(areas[0].mean()), float(areas[1].mean())
    figures.outside += np.histogram(outside, BINS, (0, 1 + 1e-9))[0]
    for name in dict.fromkeys(names.tolist()):
        of_class = names == name
        found = figures.classes[str(name)]
        found.weighed += int(of_class.sum())
        found.outside += float(outside[of_class].sum())
        found.border += float(border[of_class].sum())
        total_map = positive[of_class].sum(axis=0)
        if found.tokens is not None:
            total_map = found.tokens + _on_grid(total_map, found.tokens.shape)
        found.tokens = total_map
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
    """The row of each picture with the largest probability, the first of these.

    Where the outputs are no probabilities, that with the largest score.
    """
    columns = (part[name].to_pylist() for name in ("index", "probability", "logit"))
    best: dict[int, tuple[tuple[float, float], int]] = {}
    for place, (index, probability, score) in enumerate(zip(*columns, strict=True)):
        rank = (-1.0, score) if probability is None else (probability, 0.0)
        if index not in best or rank > best[index][0]:
            best[index] = (rank, place)
    return [place for _, place in best.values()]


def inside(grid: tuple[int, int], share: float) -> np.ndarray[Any, Any]:
    """How much of each token (h, w) lies in the middle box that has this share of each side."""

    def covered(length: int) -> np.ndarray[Any, Any]:
        edges = np.arange(length + 1) / length
        low, high = (1 - share) / 2, (1 + share) / 2
        return (edges[1:].clip(low, high) - edges[:-1].clip(low, high)) * length

    return np.outer(covered(grid[0]), covered(grid[1]))


def _on_grid(tokens: np.ndarray[Any, Any], grid: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """A map on another grid, with its sum kept."""
    if tokens.shape == grid:
        return tokens
    rows, columns = (_overlaps(a, b) for a, b in zip(tokens.shape, grid, strict=True))
    return rows @ tokens @ columns.T


def _overlaps(before: int, after: int) -> np.ndarray[Any, Any]:
    """(after, before): which share of each old token lies in each new one, along one axis."""
    old, new = np.arange(before + 1) / before, np.arange(after + 1) / after
    low = np.maximum(old[None, :-1], new[:-1, None])
    high = np.minimum(old[None, 1:], new[1:, None])
    return (high - low).clip(min=0) * before


def _whole_pictures(batches: Iterable[Any]) -> Iterator[Any]:
    """Tables that end where a picture ends."""
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
    served = table.filter(pc.is_valid(table["relevance"]))
    heights, widths = served["grid_height"].to_pylist(), served["grid_width"].to_pylist()
    grids = np.array(list(zip(heights, widths, strict=True))).reshape(-1, 2)
    for grid in np.unique(grids, axis=0):
        yield served.take(np.flatnonzero((grids == grid).all(axis=1)))
