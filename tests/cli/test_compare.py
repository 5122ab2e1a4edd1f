"""`gradtoken compare`: a sheet of every method."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.cli.program import invoke, json_lines, stdout


def test_compare_draws_a_column_per_method(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheets" / "all.png"
    methods = [part for name in ("gradtoken", "rollout", "cdam") for part in ("--method", name)]
    printed = stdout("compare", scene, *methods, "--out", out)
    assert "rollout" in printed
    assert "1.000" in printed
    width, height = Image.open(out).size
    assert width > 1.5 * height
    assert not list(out.parent.glob(".part-*"))


def test_compare_as_json_agrees_with_coupling(scene: Path, tmp_path: Path) -> None:
    methods = ("--method", "gradtoken", "--method", "rollout")
    sheet = tmp_path / "sheet.png"
    (record,) = json_lines("compare", scene, *methods, "--out", sheet)
    (expected,) = json_lines("coupling", scene, *methods, "--method", "random")
    assert record["coupling"] == expected["coupling"]
    assert record["file"] == str(sheet)
    assert len(record["targets"]) == 2


def test_compare_has_no_coupling_of_a_single_target(scene: Path, tmp_path: Path) -> None:
    arguments = ("--method", "rollout", "-t", "rocket", "--out", tmp_path / "sheet.png")
    (record,) = json_lines("compare", scene, *arguments)
    assert record["coupling"] == {"rollout": None, "random": None}


def test_compare_names_methods_that_do_not_support_the_model(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "swin.png"
    arguments = ("compare", scene, "-m", "timm/swin_tiny_patch4_window7_224", "--random-weights")
    printed = stdout(*arguments, "--method", "gradtoken", "--method", "gae", "--out", out)
    assert "gae needs the attention between all" in " ".join(printed.split())
    assert out.exists()
    result = invoke(*arguments, "--method", "gae", "--out", tmp_path / "no.png")
    assert "none of the methods works on" in str(result.exception)
    assert not (tmp_path / "no.png").exists()


def test_compare_rejects_a_name_of_no_image_format(scene: Path, tmp_path: Path) -> None:
    result = invoke("compare", scene, "--method", "rollout", "--out", tmp_path / "sheet.xyz")
    assert "cannot write" in str(result.exception)
    assert list(tmp_path.glob("sheet*")) == []
