"""The model's activation in a run: in its rows, its manifest, and when it is gone on with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import gradtoken
from gradtoken.batch import read
from gradtoken.batch.results.reporting import report
from gradtoken.errors import ModelError, OutputError
from tests.batch.conftest import JOB, start


def test_rows_have_the_models_probability(folder: Path, tmp_path: Path) -> None:
    start(folder, tmp_path / "out", job=replace(JOB, activation="sigmoid"))
    settings = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]
    assert settings["activation"] == "sigmoid"
    model = gradtoken.load("demo")
    for one in read(str(tmp_path / "out")):
        logits = model(model.preprocess(_open(folder / one.id))[None])
        expected = float(logits[0, one.target_id].sigmoid())
        assert one.probability == pytest.approx(expected, rel=1e-4)


def test_no_probability_and_a_report_by_score(folder: Path, tmp_path: Path) -> None:
    start(folder, tmp_path / "out", job=replace(JOB, activation="none"))
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    served = [row for row in rows if row["error"] is None]
    assert all(row["probability"] is None for row in served)
    report(str(tmp_path / "out"), tmp_path / "page")
    page = (tmp_path / "page" / "report.md").read_text()
    best = max((r for r in served if r["id"] == "b/009.png"), key=lambda r: r["logit"])
    assert f"| b/009.png | {best['target_name']} | y = {best['logit']:.3f} |" in page
    assert "nan" not in page


def test_another_activation_is_another_run(folder: Path, tmp_path: Path) -> None:
    start(folder, tmp_path / "out")
    with pytest.raises(OutputError, match='activation was "softmax" and is "sigmoid"'):
        start(folder, tmp_path / "out", job=replace(JOB, activation="sigmoid"), resume=True)
    start(folder, tmp_path / "out", job=replace(JOB, activation="softmax"), resume=True)
    with pytest.raises(ModelError, match="activation is 'tanh'"):
        start(folder, tmp_path / "new", job=replace(JOB, activation="tanh"))


def _open(path: Path):
    from PIL import Image

    return Image.open(path).convert("RGB")
