"""`gradtoken demo`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.program import json_lines, run_main


def test_demo_writes_a_figure_and_prints_metrics(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = run_main(capsys, "demo", "--out", tmp_path / "d", "--objects", "2")
    assert (code, err) == (0, "")
    assert "share on own object" in out
    assert re.search(r"gradtoken -?\d\.\d\d, rollout 1\.00", out)
    with Image.open(tmp_path / "d" / "demo.png") as image:
        assert image.width > 600
    manifest = json.loads((tmp_path / "d" / "manifest.json").read_text())
    assert len(manifest["targets"]) == 2


def test_demo_as_json(tmp_path: Path) -> None:
    (record,) = json_lines("demo", "--objects", 2, "--out", tmp_path / "demo")
    assert len(record["figures"]["gradtoken"]["share"]) == len(record["targets"]) == 2
    assert Path(record["file"]).exists()
