"""The command line as a user meets it: outputs, exit codes and one-sentence errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gradtoken
from gradtoken.cli.app import main
from gradtoken.datasets import Scenes


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `gradtoken ARGS`, with white space made single."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gradtoken", *map(str, args)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, " ".join(captured.out.split()), " ".join(captured.err.split())


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradtoken.cli import app

    for console in (app.console, app.problems):
        monkeypatch.setattr(console, "_width", 300)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    Scenes("test", objects=2)[0].image.save(path)
    return path


def test_demo(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "demo", "--out", tmp_path / "d", "--objects", "2")
    assert (code, err) == (0, "")
    assert "share on own object" in out
    assert re.search(r"gradtoken -?\d\.\d\d, rollout 1\.00", out)
    with Image.open(tmp_path / "d" / "demo.png") as picture:
        assert picture.width > 600
    manifest = json.loads((tmp_path / "d" / "manifest.json").read_text())
    assert len(manifest["targets"]) == 2


def test_explain_writes_a_folder_per_picture(
    capsys: pytest.CaptureFixture[str], scene: Path, tmp_path: Path
) -> None:
    out_dir = tmp_path / "out"
    code, out, err = run(
        capsys, "explain", scene, "-t", "rocket", "-t", "PANDA", "--out", out_dir,
        "-o", "preset=faithful", "-o", "layers=[-1,-2]",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "rocket" in out
    assert "panda" in out
    manifest = json.loads((out_dir / "scene" / "manifest.json").read_text())
    assert manifest["method"]["options"]["layers"] == [-1, -2]
    assert manifest["method"]["options"]["beta"] == 1.0
    with np.load(out_dir / "scene" / "tokens.npz") as saved:
        expected = gradtoken.explain(
            gradtoken.load("demo"), scene, ["rocket", "panda"], preset="faithful", layers=[-1, -2]
        )
        np.testing.assert_allclose(saved["tokens"], expected.tokens[0].cpu(), rtol=1e-5)


def test_one_bad_file_does_not_stop_the_rest(
    capsys: pytest.CaptureFixture[str], scene: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("not a picture")
    code, out, err = run(capsys, "explain", tmp_path, "--out", tmp_path / "out")
    assert code == 1
    assert "bad.png is not a picture" in err
    assert "1 of 2 pictures could not be explained" in err
    assert "scene.png" in out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["scene"]


def test_patterns_and_folders(
    capsys: pytest.CaptureFixture[str], scene: Path, tmp_path: Path
) -> None:
    Image.open(scene).save(tmp_path / "other.jpg")
    code, *_ = run(capsys, "explain", tmp_path / "*.png", tmp_path, "--out", tmp_path / "out")
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["other", "scene"]


@pytest.mark.slow
def test_coupling_prints_every_method(capsys: pytest.CaptureFixture[str], scene: Path) -> None:
    code, out, err = run(capsys, "coupling", scene, "--top-k", "3", "--image-size", "64")
    assert (code, err) == (0, "")
    values = dict(re.findall(r"(gradtoken|raw-attention|rollout) │ (-?\d\.\d{3})", out))
    assert values["raw-attention"] == values["rollout"] == "1.000"
    assert float(values["gradtoken"]) < 0.9


def test_models_and_methods(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "models", "dinov2")
    assert code == 0
    assert "timm/vit_small_patch14_dinov2" in out.split()
    assert all("dinov2" in name for name in out.split())
    code, out, _ = run(capsys, "methods")
    assert code == 0
    for word in ("gradtoken", "raw-attention", "rollout", "beta=0.5", "Neural Networks"):
        assert word in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["explain", "none.png"], "none.png does not exist"),
        (["explain", "*.nothing"], "no file matches"),
        (["explain", "{scene}", "-t", "rockt"], "did you mean 'rocket'"),
        (["explain", "{scene}", "-t", "4242"], "out of range"),
        (["explain", "{scene}", "--top-k", "0"], "top_k is 0"),
        (["explain", "{scene}", "-m", "dmo"], "did you mean 'demo'"),
        (["explain", "{scene}", "--method", "rolout"], "did you mean 'rollout'"),
        (["explain", "{scene}", "-o", "beta"], "is not name=value"),
        (["explain", "{scene}", "-o", "beta=-1"], "beta is -1"),
        (["explain", "{scene}", "--device", "warp"], "device 'warp' cannot be used"),
        (["explain", "{scene}", "--dtype", "int4"], "dtype 'int4' cannot be used"),
        (["explain", "{scene}", "--out", "{scene}/x"], "cannot write to"),
        (["explain", ""], "an empty name is no picture"),
        (["coupling", "{scene}", "-t", "rocket"], "--target twice"),
        (["coupling", "{scene}", "-t", "rocket", "-t", "ROCKET"], "--target twice"),
        (["models", "resnext"], "no model matches 'resnext'"),
    ],
)
def test_errors_are_one_sentence_and_exit_1(
    capsys: pytest.CaptureFixture[str],
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [arg.replace("{scene}", str(scene)) for arg in args]
    code, _, err = run(capsys, *filled)
    assert code == 1
    assert words in err
    assert "Traceback" not in err
    assert err.startswith("error: ")


def test_an_empty_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "explain", tmp_path, "--out", tmp_path / "out")
    assert code == 1
    assert "there is no picture in the folder" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the root user")
def test_a_read_only_output_folder(
    capsys: pytest.CaptureFixture[str], scene: Path, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    code, _, err = run(capsys, "explain", scene, "--out", locked / "out")
    assert code == 1
    assert "Permission denied" in err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "explain", "--help")
    assert code == 0
    assert "gradtoken explain photo.jpg" in out
    code, out, _ = run(capsys, "--version")
    assert out == f"gradtoken {gradtoken.__version__}"


def test_importing_and_asking_for_help_do_not_load_torch() -> None:
    script = (
        "import sys, gradtoken, gradtoken.cli.commands; "
        "sys.exit(bool({'torch', 'matplotlib', 'gradio'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_public_names_exist() -> None:
    for name in gradtoken.__all__:
        assert getattr(gradtoken, name) is not None
    assert callable(gradtoken.methods)
    assert callable(gradtoken.coupling)
    assert set(gradtoken._HOMES) == set(gradtoken.__all__)


def test_prompts(capsys: pytest.CaptureFixture[str], scene: Path, tmp_path: Path) -> None:
    given = ("explain", scene, "-m", "open_clip/ViT-S-32", "--random-weights")
    code, out, err = run(
        capsys, *given, "--text", "a cat", "--text", "a dog", "--out", tmp_path / "out"
    )
    assert (code, err) == (0, "")
    assert "a cat" in out
    manifest = json.loads(next((tmp_path / "out").rglob("manifest.json")).read_text())
    kinds = [(target["kind"], target["prompt"]) for target in manifest["targets"]]
    assert kinds == [("text", "a cat"), ("text", "a dog")]
    assert manifest["model"]["weights"] == "random"
    for arguments, words in (
        (given, "compares pictures with text and has no classes"),
        ((*given, "-t", "cat", "--text", "a cat"), "give one"),
        (("explain", scene, "--text", "a cat"), "demo has classes and reads no text"),
    ):
        code, _, err = run(capsys, *arguments, "--out", tmp_path / "none")
        assert code == 1
        assert words in err
        assert not (tmp_path / "none").exists()
