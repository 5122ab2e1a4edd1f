"""`gradtoken batch`: how its options become a job; runs are tested in tests/batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gradtoken.errors import TargetError
from tests.cli.program import stdout


def test_batch_above_a_probability(scene: Path, tmp_path: Path) -> None:
    command = ("batch", scene.parent, "--out", tmp_path / "out", "--activation", "sigmoid")
    stdout(*command, "--above", 0.9, "--json")
    settings = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]
    assert settings["targets"] == {"above": 0.9}
    with pytest.raises(TargetError, match="--targets and --above both choose the classes"):
        stdout(*command, "--above", 0.9, "--targets", "all")
