"""`gradtoken coupling`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.program import invoke, json_lines, run_main


@pytest.mark.slow
def test_coupling_prints_every_method(capsys: pytest.CaptureFixture[str], scene: Path) -> None:
    code, out, err = run_main(capsys, "coupling", scene, "--top-k", "3", "--image-size", "64")
    assert (code, err) == (0, "")
    values = dict(re.findall(r"(gradtoken|raw-attention|rollout) │ (-?\d\.\d{3})", out))
    assert values["raw-attention"] == values["rollout"] == "1.000"
    assert float(values["gradtoken"]) < 0.9


def test_coupling_as_json(scene: Path) -> None:
    (record,) = json_lines("coupling", scene, "--method", "gradtoken", "--method", "rollout")
    assert record["coupling"]["rollout"] == pytest.approx(1)
    assert record["images"] == 1


def test_coupling_continues_after_a_file_that_is_no_image(scene: Path) -> None:
    bad = scene.parent / "bad.png"
    bad.write_text("no picture")
    (record,) = json_lines("coupling", bad, scene, "--method", "rollout", code=1)
    assert record["coupling"]["rollout"] == pytest.approx(1)
    assert [entry["image"] for entry in record["failed"]] == [str(bad)]


def test_coupling_names_methods_that_do_not_support_the_model(scene: Path) -> None:
    swin = ("coupling", scene, "-m", "timm/swin_tiny_patch4_window7_224", "--random-weights")
    (record,) = json_lines(*swin, "--method", "gradtoken", "--method", "gae")
    assert list(record["coupling"]) == ["gradtoken"]
    assert "gae needs the attention between all" in record["refused"]["gae"]
    result = invoke(*swin, "--method", "gae")
    assert "none of the methods works on timm/swin" in str(result.exception)
