"""Results are read back, with filters."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from PIL import Image

import gradtoken
from gradtoken.batch import read
from gradtoken.errors import DatasetError
from tests.batch.conftest import COUNT


def test_read_names_damaged_results(out: Path) -> None:
    path = out / "data" / "00000000.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    for use in (list, len, lambda results: results.table()):
        with pytest.raises(DatasetError, match="data are damaged"):
            use(read(str(out)))
    if hasattr(os, "mkfifo"):
        path.unlink()
        os.mkfifo(path)
        assert len(read(str(out))) < 2 * (COUNT - 1)


def test_maps_equal_explain(out: Path, folder: Path) -> None:
    maps = list(read(str(out)))
    assert len(maps) == len(read(str(out))) == 2 * (COUNT - 1)
    result = maps[2]
    assert (result.id, result.rank, result.size, result.tokens.shape) == (
        "001.png",
        0,
        (112, 112),
        (14, 14),
    )
    expected = gradtoken.explain(gradtoken.load("demo"), folder / "001.png")
    np.testing.assert_allclose(
        result.relevance(),
        expected[0].relevance[0, 0].cpu(),
        atol=2e-3 * np.abs(result.tokens).max(),
    )
    drawn = np.asarray(result.overlay(Image.open(folder / "001.png"))).astype(int)
    assert np.abs(drawn - np.asarray(expected.overlay()).astype(int)).max() <= 3
    assert result.relevance((56, 28)).shape == (28, 56)


def test_read_filters(out: Path) -> None:
    everything = list(read(str(out), errors=None))
    assert len(everything) == 2 * (COUNT - 1) + 1
    (bad,) = read(str(out), errors=True)
    assert bad.error.startswith("the file is not an image")
    with pytest.raises(DatasetError, match="has no map"):
        bad.relevance()
    name = everything[0].target_name
    selected = list(read(str(out), targets=name))
    assert selected
    assert {result.target_name for result in selected} == {name}
    assert [result.index for result in read(str(out), targets=[everything[0].target_id])] == [
        result.index for result in selected
    ]
    assert {result.id for result in read(str(out), ids=["001.png", "b/008.png"])} == {
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
