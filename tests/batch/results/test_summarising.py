"""Statistics over all maps of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from gradtoken.batch import read
from gradtoken.batch.results.plots import draw
from gradtoken.batch.results.summarising import COLUMNS, inside, summarise
from gradtoken.errors import DatasetError


@pytest.mark.parametrize("column", ["index", "grid_height"])
def test_summarise_rejects_null_columns(out: Path, column: str) -> None:
    path = out / "data" / "00000000.parquet"
    rows = parquet.read_table(path)
    field = rows.schema.field(column)
    parquet.write_table(
        rows.set_column(
            rows.schema.get_field_index(column), field, pa.nulls(len(rows), field.type)
        ),
        path,
    )
    with pytest.raises(DatasetError, match="the results are damaged"):
        summarise(read(str(out), errors=None).batches(COLUMNS), 3)


def test_summarise_known_maps() -> None:
    """Maps whose shares are known, in batches that cut an image in two."""
    corner, middle = np.zeros((8, 8), np.float16), np.zeros((8, 8), np.float16)
    corner[0, 0], middle[3:5, 3:5] = 1, 0.5
    middle[7, 7] = -1
    rows = [
        _row(0, 0, "a", 0.9, middle),
        _row(0, 1, "b", 0.1, corner),
        _row(1, 0, "b", 0.2, middle),
        _row(1, 1, "a", 0.8, corner),
        {"index": 2, "id": "2", "rank": 0, "error": "no"},
    ]
    assert tuple(_schema().names) == COLUMNS
    batches = pa.Table.from_pylist(rows, _schema()).to_batches(max_chunksize=3)
    statistics = summarise(batches, 5)
    assert (statistics.images, statistics.maps, statistics.failed) == (3, 4, 1)
    assert statistics.outside[0] == statistics.outside[-1] == 2
    assert statistics.uniform == (0.75, 0.4375)
    assert statistics.classes["a"].border == statistics.classes["b"].outside == 1.0
    assert [(e.number, e.target, e.border) for e in statistics.examples] == [
        (1, "a", 1.0),
        (0, "a", 0.0),
    ]
    mean = statistics.classes["a"].mean()
    assert mean[0, 0] == 0.5
    assert mean[7, 7] == 0
    assert statistics.errors == [("2", "no")]


def test_summarise_leaves_out_maps_without_evidence() -> None:
    """Also where the likeliest class's map is one: the next class is not taken in its place."""
    usual, negative = np.zeros((8, 8), np.float16), np.full((8, 8), -0.2, np.float16)
    usual[3:5, 3:5] = 1
    negative[0, 0] = 1
    blank = np.zeros((8, 8), np.float16)
    rows = [
        _row(0, 0, "a", 0.9, negative),
        _row(0, 1, "b", 0.1, usual),
        _row(1, 0, "a", 0.9, usual),
        _row(1, 1, "b", 0.1, blank),
        _row(2, 0, "c", 0.9, negative),
    ]
    table = pa.Table.from_pylist(rows, _schema())
    statistics = summarise(table.to_batches(), 5)
    assert (statistics.maps, statistics.with_evidence, statistics.outside.sum()) == (5, 2, 2)
    assert [(e.number, e.target) for e in statistics.examples] == [(1, "a")]
    classes = statistics.classes
    assert [(classes[n].maps, classes[n].with_evidence) for n in "abc"] == [(2, 1), (2, 1), (1, 0)]
    assert classes["a"].border == classes["a"].outside == 0
    np.testing.assert_allclose(classes["a"].mean(), usual / 4)
    assert classes["c"].tokens is None
    nothing = summarise(pa.Table.from_pylist(rows[4:], _schema()).to_batches(), 5)
    assert (nothing.maps, nothing.with_evidence, nothing.examples) == (1, 0, [])
    draw(nothing, [], 12)


def test_inside_splits_tokens_of_odd_grids() -> None:
    assert inside((7, 7), 0.5).sum() == pytest.approx(49 / 4)
    assert inside((7, 7), 0.5)[1, 3] == pytest.approx(0.25)


def _schema() -> pa.Schema:
    return pa.schema(
        [
            ("index", pa.int64()),
            *((name, pa.string()) for name in ("id", "source", "sha256")),
            ("rank", pa.int16()),
            ("target_name", pa.string()),
            ("logit", pa.float32()),
            ("probability", pa.float32()),
            ("grid_height", pa.int16()),
            ("grid_width", pa.int16()),
            ("relevance", pa.list_(pa.float16())),
            ("error", pa.string()),
        ]
    )


def _row(
    index: int, rank: int, target: str, probability: float, tokens: np.ndarray
) -> dict[str, object]:
    return {
        "index": index,
        "id": str(index),
        "rank": rank,
        "target_name": target,
        "logit": 0.0,
        "probability": probability,
        "grid_height": 8,
        "grid_width": 8,
        "relevance": tokens.ravel(),
    }
