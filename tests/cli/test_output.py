"""What `Output` prints, and where its progress bar goes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from gradtoken.cli.output import Output, finite
from tests.cli.program import PROGRAM, invoke
from tests.waiting import PATIENCE


def test_document_is_ascii_for_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    name = "odd \udcff … ä"
    Output(as_json=True).document({"name": name})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed) == {"name": name}


def test_finite_replaces_nan_and_infinity_by_none() -> None:
    assert finite({"a": [float("nan"), 1.0, (float("inf"),)], 3: None}) == {
        "a": [None, 1.0, [None]],
        "3": None,
    }


def test_quiet_prints_only_errors(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    result = invoke("explain", tmp_path, "--out", tmp_path / "out", "--quiet")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "is not an image" in result.stderr
    result = invoke("check", "demo", "-q")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_progress_on_a_terminal_leaves_standard_output_alone(scene: Path, tmp_path: Path) -> None:
    """Standard error is a terminal, and a program reads standard output."""
    import pty

    ours, theirs = pty.openpty()
    arguments = ["explain", str(scene), "--json", "--out", str(tmp_path / "out")]
    process = subprocess.Popen([*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    printed, _ = process.communicate(timeout=PATIENCE)
    shown = os.read(ours, 1 << 16)
    os.close(ours)
    assert json.loads(printed)["image"] == str(scene)
    assert b"explaining" in shown
    assert b"scene.png" not in shown


def test_progress_is_not_shown_by_forced_colours_alone(scene: Path, tmp_path: Path) -> None:
    """Notebooks force colours for every program that they start."""
    done = subprocess.run(
        [*PROGRAM, "explain", str(scene), "--json", "--out", str(tmp_path / "out")],
        capture_output=True,
        env={**os.environ, "FORCE_COLOR": "1"},
        check=True,
    )
    assert json.loads(done.stdout)["image"] == str(scene)
    assert done.stderr == b""
