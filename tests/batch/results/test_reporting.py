"""The report of a run: a page and a figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from gradtoken.batch import report
from gradtoken.errors import DatasetError
from tests.batch.conftest import JOB, start


def test_report_shows_logits_without_probabilities(folder: Path, tmp_path: Path) -> None:
    start(folder, tmp_path / "out", job=replace(JOB, activation="none"))
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    explained = [row for row in rows if row["error"] is None]
    assert all(row["probability"] is None for row in explained)
    report(str(tmp_path / "out"), tmp_path / "page")
    page = (tmp_path / "page" / "report.md").read_text()
    best = max((r for r in explained if r["id"] == "b/009.png"), key=lambda r: r["logit"])
    assert f"| b/009.png | {best['target_name']} | y = {best['logit']:.3f} |" in page
    assert "nan" not in page


def test_report_writes_page_and_figure(out: Path, folder: Path, tmp_path: Path) -> None:
    figure, page = report(str(out), tmp_path / "report", examples=5)
    assert min(Image.open(figure).size) > 600
    text = page.read_text()
    assert "10 of 10 images, 18 maps, 1 failed" in text
    says = "the file is not an image in a format Pillow reads (PNG, JPEG, WebP, TIFF, GIF, …)."
    assert f"| 004.png | {says} |" in text
    assert text.count(".png | ") == 6
    for path in folder.rglob("*.png"):
        path.unlink()
    report(str(out), tmp_path / "report")
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"report.md", "report.png"}
    with pytest.raises(DatasetError, match="no results"):
        report(str(tmp_path))
