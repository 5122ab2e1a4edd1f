"""A map without positive evidence: by the numbers, and wherever it is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import gradtoken
from gradtoken import Explanation, Style
from gradtoken.app.maps import says
from gradtoken.cli.app import app
from gradtoken.datasets import Scenes
from gradtoken.explanation import style as display
from gradtoken.explanation.evidence import LEAST, evidence_of
from gradtoken.explanation.sheet import rows_of, sheet
from gradtoken.models import Model
from gradtoken.report import Report


def maps() -> Tensor:
    """A usual map, one hot corner in a negative map, a wholly negative one, and nothing."""
    usual = torch.full((8, 8), -0.1)
    usual[2:5, 2:5] = 1
    corner = torch.full((8, 8), -0.2)
    corner[0, 0] = 1
    return torch.stack([usual, corner, torch.full((8, 8), -0.3), torch.zeros(8, 8)])


@pytest.fixture
def found(model: Model, batch: Tensor) -> Explanation:
    made = gradtoken.explain(model, batch[:1], [1, 2, 3, 4])
    return replace(made, tokens=maps()[None])


def test_the_numbers() -> None:
    found = evidence_of(maps())
    assert found.total.tolist() == pytest.approx([9 - 5.5, 1 - 63 * 0.2, -64 * 0.3, 0])
    assert found.positive.tolist() == pytest.approx([9 / 14.5, 1 / 13.6, 0, 0])
    assert found.none.tolist() == [False, True, True, True]
    assert found[0].words() == ""
    assert found[1].words() == "no positive evidence, sum -11.6"
    assert found[3].words() == "no positive evidence, sum 0"


def test_the_threshold_is_a_share_that_is_reached() -> None:
    at = torch.tensor([[1.0, -9.0]])
    assert evidence_of(at).positive.item() == pytest.approx(LEAST)
    assert not evidence_of(at).none
    assert evidence_of(torch.tensor([[1.0, -9.01]])).none


def test_unsigned_maps_lack_evidence_only_where_they_are_zero() -> None:
    unsigned = torch.zeros(2, 8, 8)
    unsigned[0, 3, 3] = 1e-9
    assert evidence_of(unsigned).none.tolist() == [False, True]


def test_it_is_part_of_the_explanation(found: Explanation, tmp_path: Path) -> None:
    assert found.evidence.none.tolist() == [[False, True, True, True]]
    targets = found.to_dict()[0]["targets"]
    assert targets[1]["evidence"] == {
        "total": pytest.approx(-11.6),
        "positive": pytest.approx(1 / 13.6),
        "none": True,
    }
    found.save(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [t["evidence"]["none"] for t in manifest["targets"]] == [False, True, True, True]


def strength(found: Explanation, k: int, style: Style | None = None) -> float:
    """The largest difference of an overlay from what lies under it, in 0 to 1."""
    picture, _, box = found.laid_out(k)
    under = np.asarray(display.backdrop(picture, box), dtype=float)
    drawn = np.asarray(found.overlay(k, style=style), dtype=float)
    return float(np.abs(drawn - under).max()) / 255


def test_overlays_are_not_scaled_up(found: Explanation) -> None:
    assert strength(found, 0) > 0.5
    picture, values, box = found.laid_out(1)
    scaled_up = display.overlay(picture, values, box, Style())
    faint = found.overlay(1)
    share = 1 / 13.6
    shown = display.normalised(values, Style(scale=1 / share))
    assert float(shown.max()) == pytest.approx(share)
    expected = display.overlay(picture, values, box, Style(scale=1 / share))
    np.testing.assert_array_equal(np.asarray(faint), np.asarray(expected))
    assert (np.asarray(faint) != np.asarray(scaled_up)).any()
    assert strength(found, 1) < 0.3
    assert strength(found, 2) == strength(found, 3) == 0


def test_a_scale_of_ones_own_and_signed_colours_stay(found: Explanation) -> None:
    picture, values, box = found.laid_out(1)
    for style in (Style(scale=1000.0), Style(signed=True)):
        expected = display.overlay(picture, values, box, style)
        drawn = found.overlay(1, style=style)
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))
    low = found.overlay(1, style=Style(scale=0.01))
    np.testing.assert_array_equal(np.asarray(low), np.asarray(found.overlay(1)))


def test_figures_say_it(found: Explanation) -> None:
    titles = [axis.get_title() for axis in found.figure().axes if axis.images]
    assert titles[1] == f"class 1\np = {float(found.probabilities[0, 0]):.3f}"
    assert titles[2].splitlines()[2] == "no positive evidence, sum -11.6"
    assert titles[4].endswith("no positive evidence, sum 0")


def test_one_scale_is_of_the_maps_with_evidence(found: Explanation) -> None:
    loud = found.tokens.clone()
    loud[0, 1] *= 100
    found = replace(found, tokens=loud)
    figure = found.figure(shared_scale=True, picture=False)
    drawn = [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]
    top = float(found.laid_out(0)[1].max())
    expected = np.asarray(found.overlay(0, style=Style(scale=top)))
    np.testing.assert_array_equal(drawn[0], expected)
    np.testing.assert_array_equal(drawn[1], np.asarray(found.overlay(1)))
    blank = found.figure(targets=[2, 3], shared_scale=True, picture=False)
    assert len([axis for axis in blank.axes if axis.images]) == 2


def test_sheets_say_it(found: Explanation) -> None:
    rows = rows_of({"gradtoken": found, "other": "refused"}, Style())
    assert [row.notes for row in rows] == [{}, *[{"gradtoken": "no positive evidence"}] * 3]
    axes = sheet(rows, "caption").axes
    assert axes[1].get_xlabel() == ""
    assert axes[4].get_xlabel() == "no positive evidence"


def test_the_report_says_it(found: Explanation, tmp_path: Path) -> None:
    with Report(tmp_path / "report.html") as report:
        report.add(found)
    page = (tmp_path / "report.html").read_text()
    assert page.count('<span class="none">no positive evidence, sum -') == 2
    assert '<span class="none">no positive evidence, sum 0</span>' in page
    assert "<td>0.074, no positive evidence</td>" in page
    assert "<td>0.621</td>" in page


def test_the_app_says_it(found: Explanation) -> None:
    assert says(found, 1).endswith("% · no positive evidence, sum -11.6")
    assert "evidence" not in says(found, 0)


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


def test_the_command_line_says_it(scene: tuple[Path, str, str], tmp_path: Path) -> None:
    path, there, missing = scene
    command = ["explain", str(path), "-t", there, "-t", missing, "--out", str(tmp_path / "out")]
    table = CliRunner().invoke(app, command, env={"COLUMNS": "200"}).stdout
    assert "no positive" in table
    assert "evidence, sum" in table
    assert "% positive" in table
    (line,) = CliRunner().invoke(app, [*command, "--json"]).stdout.splitlines()
    evidence = [target["evidence"] for target in json.loads(line)["targets"]]
    assert [one["none"] for one in evidence] == [False, True]
    assert evidence[1]["total"] < 0
    assert evidence[1]["positive"] < LEAST


def test_batches_have_columns_of_it(scene: tuple[Path, str, str], tmp_path: Path) -> None:
    from gradtoken.batch import Job, TargetSpec, read, run
    from gradtoken.batch.results.reporting import report

    path, there, missing = scene
    (tmp_path / "photos").mkdir()
    path.rename(tmp_path / "photos" / "scene.png")
    job = Job(targets=TargetSpec(classes=(there, missing)))
    run(str(tmp_path / "photos"), str(tmp_path / "out"), job)
    one, other = read(str(tmp_path / "out"))
    for found in (one, other):
        exact = evidence_of(torch.from_numpy(found.tokens))
        assert found.total == pytest.approx(float(exact.total), rel=1e-2)
        assert found.positive == pytest.approx(float(exact.positive), abs=1e-3)
    assert (one.evidence, other.evidence) == (True, False)
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
