"""Results read back with filters, and the report on them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image
from pyarrow import parquet
from typer.testing import CliRunner

import gradtoken
from gradtoken.batch import read, report
from gradtoken.batch.results.plots import draw
from gradtoken.batch.results.summarising import COLUMNS, inside, summarise
from gradtoken.errors import DatasetError, GradTokenError
from tests.batch.conftest import COUNT, start


@pytest.fixture
def out(folder: Path, tmp_path: Path) -> Path:
    start(folder, tmp_path / "out")
    return tmp_path / "out"


def test_damaged_results_are_named(out: Path) -> None:
    path = out / "data" / "00000000.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    for use in (list, len, lambda found: found.table()):
        with pytest.raises(DatasetError, match="data are damaged"):
            use(read(str(out)))
    if hasattr(os, "mkfifo"):
        path.unlink()
        os.mkfifo(path)
        assert len(read(str(out))) < 2 * (COUNT - 1)


@pytest.mark.parametrize("column", ["index", "grid_height"])
def test_rows_that_are_no_results_are_not_summarised(out: Path, column: str) -> None:
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


def test_maps_come_back_as_they_were(out: Path, folder: Path) -> None:
    maps = list(read(str(out)))
    assert len(maps) == len(read(str(out))) == 2 * (COUNT - 1)
    one = maps[2]
    assert (one.id, one.rank, one.size, one.tokens.shape) == ("001.png", 0, (112, 112), (14, 14))
    expected = gradtoken.explain(gradtoken.load("demo"), folder / "001.png")
    np.testing.assert_allclose(
        one.relevance(), expected[0].relevance[0, 0].cpu(), atol=2e-3 * np.abs(one.tokens).max()
    )
    drawn = np.asarray(one.overlay(Image.open(folder / "001.png"))).astype(int)
    assert np.abs(drawn - np.asarray(expected.overlay()).astype(int)).max() <= 3
    assert one.relevance((56, 28)).shape == (28, 56)


def test_filters(out: Path) -> None:
    everything = list(read(str(out), errors=None))
    assert len(everything) == 2 * (COUNT - 1) + 1
    (bad,) = read(str(out), errors=True)
    assert bad.error.startswith("the file is not a picture")
    with pytest.raises(DatasetError, match="has no map"):
        bad.relevance()
    name = everything[0].target_name
    found = list(read(str(out), targets=name))
    assert found
    assert {one.target_name for one in found} == {name}
    assert [o.index for o in read(str(out), targets=[everything[0].target_id])] == [
        o.index for o in found
    ]
    assert {one.id for one in read(str(out), ids=["001.png", "b/008.png"])} == {
        "001.png",
        "b/008.png",
    }
    sure = read(str(out), where=pc.field("probability") > 0.5)
    assert 0 < len(sure) < 2 * (COUNT - 1)
    table = sure.table(["id", "probability"])
    assert table.column_names == ["id", "probability"]
    assert min(table["probability"].to_pylist()) > 0.5
    assert read(str(out)).table().num_rows == 2 * (COUNT - 1)
    with pytest.raises(DatasetError, match="no column 'probabilty'; did you mean 'probability'"):
        read(str(out)).table(["probabilty"])
    with pytest.raises(DatasetError, match="no results of gradtoken batch"):
        read(str(out / "data"))


def test_the_report(out: Path, folder: Path, tmp_path: Path) -> None:
    picture, page = report(str(out), tmp_path / "report", examples=5)
    assert min(Image.open(picture).size) > 600
    text = page.read_text()
    assert "10 of 10 pictures, 18 maps, 1 failed" in text
    says = "the file is not a picture in a format Pillow reads (PNG, JPEG, WebP, TIFF, GIF, …)."
    assert f"| 004.png | {says} |" in text
    assert text.count(".png | ") == 6
    for path in folder.rglob("*.png"):
        path.unlink()
    report(str(out), tmp_path / "report")
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"report.md", "report.png"}
    with pytest.raises(DatasetError, match="no results"):
        report(str(tmp_path))


def test_summaries_are_the_sums_they_say() -> None:
    """Maps whose shares are known, in batches that cut a picture in two."""
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
    figures = summarise(batches, 5)
    assert (figures.pictures, figures.maps, figures.failed) == (3, 4, 1)
    assert figures.outside[0] == figures.outside[-1] == 2
    assert figures.uniform == (0.75, 0.4375)
    assert figures.classes["a"].border == figures.classes["b"].outside == 1.0
    assert [(e.number, e.target, e.border) for e in figures.examples] == [
        (1, "a", 1.0),
        (0, "a", 0.0),
    ]
    mean = figures.classes["a"].mean()
    assert mean[0, 0] == 0.5
    assert mean[7, 7] == 0
    assert figures.errors == [("2", "no")]


def test_maps_without_evidence_are_left_out() -> None:
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
    figures = summarise(table.to_batches(), 5)
    assert (figures.maps, figures.weighed, figures.outside.sum()) == (5, 2, 2)
    assert [(e.number, e.target) for e in figures.examples] == [(1, "a")]
    found = figures.classes
    assert [(found[n].maps, found[n].weighed) for n in "abc"] == [(2, 1), (2, 1), (1, 0)]
    assert found["a"].border == found["a"].outside == 0
    np.testing.assert_allclose(found["a"].mean(), usual / 4)
    assert found["c"].tokens is None
    nothing = summarise(pa.Table.from_pylist(rows[4:], _schema()).to_batches(), 5)
    assert (nothing.maps, nothing.weighed, nothing.examples) == (1, 0, [])
    draw(nothing, [], 12)


def test_the_centre_of_odd_grids_is_shared_out() -> None:
    assert inside((7, 7), 0.5).sum() == pytest.approx(49 / 4)
    assert inside((7, 7), 0.5)[1, 3] == pytest.approx(0.25)


def test_the_command(folder: Path, tmp_path: Path) -> None:
    from gradtoken.cli.app import app

    def call(*arguments: str) -> object:
        return CliRunner().invoke(app, ["batch", *arguments])

    common = ("--targets", "top:2", "--shard-size", "4", "--threads", "1")
    out = str(tmp_path / "out")
    result = call(str(folder), "--out", out, *common)
    assert result.exit_code == 1
    assert "1 of 10 pictures could not be explained" in result.output
    assert "10 pictures, 19 rows in 3 shards" in result.output
    result = call(str(folder), "--out", out, *common)
    assert isinstance(result.exception, GradTokenError)
    result = call("run", str(folder), "--out", out, *common, "--resume", "--json")
    assert '"resumed": 3' in result.output
    result = call("report", out)
    assert result.exit_code == 0
    assert (tmp_path / "out" / "report.md").exists()
    (folder / "004.png").unlink()
    result = call(str(folder), "--out", str(tmp_path / "good"), *common, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


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
