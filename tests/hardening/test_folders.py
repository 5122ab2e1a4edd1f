"""Names from outside become file names, and folders that others prepared are written to."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import gradtoken
from gradtoken import Explanation
from gradtoken.cli.app import app
from gradtoken.errors import GradTokenError, OutputError
from gradtoken.explanation.saving import MANIFEST, safe_name, unique_names
from gradtoken.models import Model
from tests.hardening.state import files_in


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("../../x", "x"),
        ("..\\..\\x", "x"),
        ("/etc/passwd", "etc-passwd"),
        ("a\0b", "a-b"),
        (".hidden", "hidden"),
        ("..", "target"),
        ("", "target"),
        ("a.", "a"),
        ("con", "_con"),
        ("NUL.png", "_NUL.png"),
        ("lpt1", "_lpt1"),
        ("console", "console"),
        ("ｃｏｎ", "_con"),
        ("．．／x", "x"),
        ("ﬁsh", "fish"),
        ("e\u0301t\u00e9", "\u00e9t\u00e9"),
        ("\u202egnp.exe", "gnp.exe"),
        ("bad\udcff", "bad"),
        ("C:x", "C-x"),
        ("é" * 300, "é" * 60),
        ("x" * 10_000_000, "x" * 60),
        ("漢字", "漢字"),
    ],
)
def test_safe_name_on_any_system(label: str, name: str) -> None:
    assert safe_name(label) == name


def test_unique_names_of_similar_names() -> None:
    names = [safe_name(name) for name in ("ﬁ", "fi", "FI", "e\u0301", "\u00e9")]
    assert len({name.casefold() for name in unique_names(names)}) == 5


@pytest.fixture
def found(model: Model, picture: Image.Image) -> Explanation:
    return gradtoken.explain(model, picture, [1, 2])


def test_save_labels_that_are_no_file_names(found: Explanation, tmp_path: Path) -> None:
    labels = ["../../x\0" + "y" * 5000, "bad\udcff\nname\x1b[2J"]
    replace(found, labels=[labels]).save(tmp_path / "out")
    assert {name for name in files_in(tmp_path / "out") if name[0] == "0"} == {
        "00_x-" + "y" * 58 + ".png",
        "01_bad-name-2J.png",
    }
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text("utf-8"))
    assert [target["label"] for target in manifest["targets"]] == labels


def _earlier(folder: Path, overlays: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_text(json.dumps({"files": {"overlays": overlays}}))


def test_save_removes_only_its_own_overlays(found: Explanation, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    (outside / "00_kept.png").write_text("kept")
    names = ["00_old.png", "holiday.png", "../outside/00_kept.png", str(outside / "00_kept.png")]
    _earlier(out, [*names, "00_link.png", "a\0.png", "x" * 5000 + ".png", 3, None])
    (out / "00_old.png").write_text("old")
    (out / "holiday.png").write_text("mine")
    (out / "00_link.png").symlink_to(outside / "00_kept.png")
    found.save(out)
    assert (outside / "00_kept.png").read_text() == "kept"
    assert (out / "holiday.png").read_text() == "mine"
    assert not (out / "00_old.png").exists()
    assert not (out / "00_link.png").is_symlink()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"files": []}', '{"files": {"overlays": 3}}', "\xff"]
)
def test_save_replaces_damaged_manifest(found: Explanation, tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text, "latin-1")
    found.save(tmp_path)
    assert json.loads((tmp_path / MANIFEST).read_text("utf-8"))["targets"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_save_replaces_manifest_that_is_no_file(found: Explanation, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST)
    found.save(tmp_path)
    (tmp_path / MANIFEST).unlink()
    (tmp_path / MANIFEST).symlink_to("/dev/zero")
    found.save(tmp_path)
    assert (tmp_path / MANIFEST).is_file()
    assert not (tmp_path / MANIFEST).is_symlink()


def test_save_replaces_links_by_files(found: Explanation, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.write_text("kept")
    for name in ("00_class-1.png", "summary.png", "tokens.npz", MANIFEST):
        (out / name).symlink_to(outside)
    found.save(out)
    assert outside.read_text() == "kept"
    assert not any(path.is_symlink() for path in out.iterdir())


def test_save_rejects_linked_folders_of_images(
    model: Model, picture: Image.Image, tmp_path: Path
) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    for folder in (out, outside):
        folder.mkdir()
    (out / "a").symlink_to(outside, target_is_directory=True)
    picture.save(tmp_path / "a.png")
    found = gradtoken.explain(model, [tmp_path / "a.png", picture], 1)
    with pytest.raises(OutputError, match=r"is a link to .*not written through links"):
        found.save(out)
    assert files_in(outside) == []
    (tmp_path / "latest").symlink_to(outside, target_is_directory=True)
    found[0].save(tmp_path / "latest")
    assert MANIFEST in files_in(outside), "a link that the user names is the user's choice"


def test_explain_command_rejects_linked_folders(picture: Image.Image, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    for folder in (out, outside):
        folder.mkdir()
    (out / "a").symlink_to(outside, target_is_directory=True)
    picture.save(tmp_path / "a.png")
    result = CliRunner().invoke(
        app, ["explain", str(tmp_path / "a.png"), "--out", str(out), "--device", "cpu"]
    )
    assert result.exit_code == 1
    assert "is a link to" in " ".join(result.output.split())
    assert files_in(outside) == []


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_save_rejects_invalid_folder_name(found: Explanation, tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="cannot write to"):
        found.save(tmp_path / name)


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "x" * 300],
        ["explain", "x" * 300 + "*.png"],
        ["explain", "a.png", "--model", "timm/vit_tiny_patch16_224", "--checkpoint", "x" * 300],
        ["bench", "--data", "voc:" + "x" * 300],
        ["bench", "--data", "folder:" + "x" * 300],
        ["bench", "--data", "imagenet-seg:" + "x" * 300],
    ],
    ids=lambda given: " ".join(given)[:30],
)
def test_commands_report_names_that_are_too_long(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu", "--out", str(tmp_path)])
    problem = result.exception
    assert isinstance(problem, (GradTokenError, SystemExit)), repr(problem)
    assert result.exit_code == 1
