"""Rows of the results equal what `explain` returns."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import gradtoken
from gradtoken.batch import read
from gradtoken.batch.engines.worker import Explainer
from gradtoken.errors import ModelError
from tests.batch.conftest import COUNT, JOB, start


def test_probability_follows_the_models_activation(folder: Path, tmp_path: Path) -> None:
    start(folder, tmp_path / "out", job=replace(JOB, activation="sigmoid"))
    settings = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]
    assert settings["activation"] == "sigmoid"
    model = gradtoken.load("demo")
    for result in read(str(tmp_path / "out")):
        logits = model(model.preprocess(Image.open(folder / result.id).convert("RGB"))[None])
        expected = float(logits[0, result.target_id].sigmoid())
        assert result.probability == pytest.approx(expected, rel=1e-4)


def test_rows_equal_explain(folder: Path, tmp_path: Path) -> None:
    summary = start(folder, tmp_path / "out")
    assert (summary.images, summary.errors, summary.shards) == (COUNT, 1, 3)
    assert summary.rows == 2 * (COUNT - 1) + 1
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert [row["index"] for row in rows] == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        *np.repeat(range(5, 10), 2),
    ]
    model = gradtoken.load("demo")
    for row in rows[-2:]:
        assert row["id"] == "b/009.png"
        path = folder / "b" / "009.png"
        assert row["source"] == str(path)
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (row["width"], row["height"]) == (112, 112)
        result = gradtoken.explain(model, path, row["target_id"])
        assert row["target_name"] == result.labels[0][0]
        assert row["logit"] == pytest.approx(float(result.scores[0, 0]), rel=1e-4)
        assert row["probability"] == pytest.approx(float(result.probabilities[0, 0]), rel=1e-4)
        tokens = np.array(row["relevance"], np.float32).reshape(14, 14) * row["scale"]
        expected = result.tokens[0, 0].cpu().numpy()
        np.testing.assert_allclose(tokens, expected, atol=2e-3 * np.abs(expected).max())
        assert len(row["fingerprint"]) == 16
    bad = rows[8]
    assert bad["error"] == (
        "the file is not an image in a format Pillow reads (PNG, JPEG, WebP, TIFF, GIF, …)."
    )
    assert bad["relevance"] is bad["logit"] is bad["width"] is None
    schema = pq.read_schema(tmp_path / "out" / "data" / "00000000.parquet")
    assert str(schema.field("relevance").type) == "list<element: halffloat>"


def test_explainer_rejects_other_weights() -> None:

    identity = JOB.identity(gradtoken.load("demo"))
    with pytest.raises(ModelError, match="another weights than the run began with"):
        Explainer(JOB, {**identity, "weights": "0"})
