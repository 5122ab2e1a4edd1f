"""Positive evidence in a map: its numbers, and the notes on it in every output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import gradtoken
from gradtoken import Explanation
from gradtoken.app.maps import says
from gradtoken.cli.app import app
from gradtoken.datasets import Scenes
from gradtoken.explanation import style as display
from gradtoken.explanation.evidence import LEAST, evidence_of
from gradtoken.report import Report
from tests.explanation.conftest import evidence_maps


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, str, str]:
    """A scene, an object in it, and a class whose map has no positive evidence."""
    scene = Scenes("test", objects=2)[0]
    path = tmp_path / "scene.png"
    scene.image.save(path)
    model = gradtoken.load("demo", device="cpu")
    every = gradtoken.explain(model, path, "all")
    least = int(every.evidence.positive[0].argmin())
    assert bool(every.evidence.none[0, least])
    return path, scene.names[0], model.labels[least]


def test_evidence_of_values() -> None:
    result = evidence_of(evidence_maps())
    assert result.total.tolist() == pytest.approx([9 - 5.5, 1 - 63 * 0.2, -64 * 0.3, 0])
    assert result.positive.tolist() == pytest.approx([9 / 14.5, 1 / 13.6, 0, 0])
    assert result.none.tolist() == [False, True, True, True]
    assert result[0].words() == ""
    assert result[1].words() == "no positive evidence, sum -11.6"
    assert result[3].words() == "no positive evidence, sum 0"


def test_evidence_of_threshold_is_inclusive() -> None:
    at = torch.tensor([[1.0, -9.0]])
    assert evidence_of(at).positive.item() == pytest.approx(LEAST)
    assert not evidence_of(at).none
    assert evidence_of(torch.tensor([[1.0, -9.01]])).none


def test_evidence_of_unsigned_maps() -> None:
    unsigned = torch.zeros(2, 8, 8)
    unsigned[0, 3, 3] = 1e-9
    assert evidence_of(unsigned).none.tolist() == [False, True]


def test_explanation_evidence_is_saved(mixed: Explanation, tmp_path: Path) -> None:
    assert mixed.evidence.none.tolist() == [[False, True, True, True]]
    targets = mixed.to_dict()[0]["targets"]
    assert targets[1]["evidence"] == {
        "total": pytest.approx(-11.6),
        "positive": pytest.approx(1 / 13.6),
        "none": True,
    }
    mixed.save(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [t["evidence"]["none"] for t in manifest["targets"]] == [False, True, True, True]


def test_report_notes_missing_evidence(mixed: Explanation, tmp_path: Path) -> None:
    with Report(tmp_path / "report.html") as report:
        report.add(mixed)
    page = (tmp_path / "report.html").read_text()
    assert page.count('<span class="none">no positive evidence, sum -') == 2
    assert '<span class="none">no positive evidence, sum 0</span>' in page
    assert "<td>0.074, no positive evidence</td>" in page
    assert "<td>0.621</td>" in page


def test_app_notes_missing_evidence(mixed: Explanation) -> None:
    assert says(mixed, 1).endswith("% · no positive evidence, sum -11.6")
    assert "evidence" not in says(mixed, 0)


def test_command_line_notes_missing_evidence(scene: tuple[Path, str, str], tmp_path: Path) -> None:
    path, there, missing = scene
    command = ["explain", str(path), "-t", there, "-t", missing, "--out", str(tmp_path / "out")]
    table = CliRunner().invoke(app, command, env={"COLUMNS": "200"}).stdout
    assert "no positive" in table
    assert "evidence, sum" in table
    assert "% positive" in table
    (line,) = CliRunner().invoke(app, [*command, "--json"]).stdout.splitlines()
    evidence = [target["evidence"] for target in json.loads(line)["targets"]]
    assert [item["none"] for item in evidence] == [False, True]
    assert evidence[1]["total"] < 0
    assert evidence[1]["positive"] < LEAST


def test_batch_results_have_columns_of_evidence(
    scene: tuple[Path, str, str], tmp_path: Path
) -> None:
    from gradtoken.batch import Job, TargetSpec, read, run
    from gradtoken.batch.results.reporting import report

    path, there, missing = scene
    (tmp_path / "photos").mkdir()
    path.rename(tmp_path / "photos" / "scene.png")
    job = Job(targets=TargetSpec(classes=(there, missing)))
    run(str(tmp_path / "photos"), str(tmp_path / "out"), job)
    item, other = read(str(tmp_path / "out"))
    for actual in (item, other):
        exact = evidence_of(torch.from_numpy(actual.tokens))
        assert actual.total == pytest.approx(float(exact.total), rel=1e-2)
        assert actual.positive == pytest.approx(float(exact.positive), abs=1e-3)
    assert (item.evidence, other.evidence) == (True, False)
    image = Image.open(tmp_path / "photos" / "scene.png")
    faint = np.asarray(other.overlay(image), dtype=float)
    under = np.asarray(display.backdrop(image, display.Box(*other.box)), dtype=float)
    assert np.abs(faint - under).max() / 255 < 0.3
    report(str(tmp_path / "out"), tmp_path / "page")
    page = (tmp_path / "page" / "report.md").read_text()
    assert "Maps without positive evidence (less than 10% of their" in page
    assert "positive): 1. They are left out" in page
    assert f"| {missing} | 1 | 1 | – | – |" in page
    assert (tmp_path / "page" / "report.png").stat().st_size > 10_000
