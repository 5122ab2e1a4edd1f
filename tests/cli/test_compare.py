"""`gradtoken compare`: a sheet of every method."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from gradtoken.cli.app import app
from gradtoken.datasets import Scenes


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    from gradtoken.cli import commands  # noqa: F401

    path = tmp_path / "scene.png"
    Scenes("test", objects=2)[0].image.save(path)
    return path


def test_a_sheet_of_some_methods(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheets" / "all.png"
    methods = [part for name in ("gradtoken", "rollout", "cdam") for part in ("--method", name)]
    result = CliRunner().invoke(app, ["compare", str(scene), *methods, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "rollout" in result.output
    assert "1.000" in result.output
    width, height = Image.open(out).size
    assert width > 1.5 * height
    assert not list(out.parent.glob("*.part*"))


def test_methods_that_refuse_are_named(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "swin.png"
    arguments = ["compare", str(scene), "-m", "timm/swin_tiny_patch4_window7_224"]
    methods = ["--random-weights", "--method", "gradtoken", "--method", "gae"]
    result = CliRunner().invoke(app, [*arguments, *methods, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "gae needs the attention between all" in " ".join(result.output.split())
    assert out.exists()
    result = CliRunner().invoke(
        app, [*arguments, "--random-weights", "--method", "gae", "--out", str(tmp_path / "no.png")]
    )
    assert "none of the methods works on" in str(result.exception)
    assert not (tmp_path / "no.png").exists()


def test_a_name_that_is_no_picture_format_is_refused(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.xyz"
    result = CliRunner().invoke(
        app, ["compare", str(scene), "--method", "rollout", "--out", str(out)]
    )
    assert "cannot write" in str(result.exception)
    assert list(tmp_path.glob("sheet*")) == []
