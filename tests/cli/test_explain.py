"""`gradtoken explain`: folders, tables, records, and errors of single images."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gradtoken
from gradtoken.errors import GradTokenError, TargetError
from tests.cli.program import invoke, json_lines, run_main, stdout


def sigmoids(path: Path) -> dict[str, float]:
    model = gradtoken.load("demo", device="cpu")
    values = model(model.preprocess(Image.open(path))[None])[0].sigmoid().tolist()
    return dict(zip(model.labels, values, strict=True))


def test_explain_writes_a_folder_per_image(
    capsys: pytest.CaptureFixture[str], scene: Path, tmp_path: Path
) -> None:
    out_dir = tmp_path / "out"
    code, out, err = run_main(
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


def test_explain_prints_a_json_line_per_image(scene: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    out = tmp_path / "out"
    records = json_lines("explain", scene, bad, "-t", "rocket", "--out", out, code=1)
    assert [record["image"] for record in records] == [str(scene), str(bad)]
    manifest = json.loads((out / "scene" / "manifest.json").read_text())
    assert records[0]["targets"] == manifest["targets"]
    assert records[0]["folder"] == str(out / "scene")
    assert "is not an image" in records[1]["error"]


def test_explain_continues_after_a_file_that_is_no_image(
    capsys: pytest.CaptureFixture[str], scene: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("not an image")
    code, out, err = run_main(capsys, "explain", tmp_path, "--out", tmp_path / "out")
    assert code == 1
    assert "bad.png is not an image" in err
    assert "1 of 2 images could not be explained" in err
    assert "scene.png" in out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["scene"]


def test_explain_reads_patterns_and_folders(
    capsys: pytest.CaptureFixture[str], scene: Path, tmp_path: Path
) -> None:
    Image.open(scene).save(tmp_path / "other.jpg")
    code, *_ = run_main(capsys, "explain", tmp_path / "*.png", tmp_path, "--out", tmp_path / "out")
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["other", "scene"]


def test_explain_rejects_an_empty_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run_main(capsys, "explain", tmp_path, "--out", tmp_path / "out")
    assert code == 1
    assert "there is no image in the folder" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the root user")
def test_explain_rejects_a_read_only_output_folder(
    capsys: pytest.CaptureFixture[str], scene: Path, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    code, _, err = run_main(capsys, "explain", scene, "--out", locked / "out")
    assert code == 1
    assert "Permission denied" in err


def test_explain_shows_activation(scene: Path, tmp_path: Path) -> None:
    command = ("explain", scene, "--top-k", 2, "--out", tmp_path / "out", "--device", "cpu")
    expected = sigmoids(scene)
    (record,) = json_lines(*command, "--activation", "sigmoid")
    assert record["model"]["activation"] == "sigmoid"
    for target in record["targets"]:
        assert target["probability"] == pytest.approx(expected[target["label"]], rel=1e-4)
    manifest = json.loads((tmp_path / "out" / "scene" / "manifest.json").read_text())
    assert manifest["model"]["activation"] == "sigmoid"
    table = stdout(*command, "--activation", "sigmoid")
    assert f"{record['targets'][0]['probability']:.3f}" in table
    assert "nan" not in stdout(*command, "--activation", "none").lower()
    with pytest.raises(GradTokenError, match="activation is 'relu'; it can be 'softmax'"):
        stdout(*command, "--activation", "relu")


def test_explain_every_class_above_a_probability(scene: Path, tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    Image.new("RGB", (112, 112), (128, 128, 128)).save(grey)
    expected = {n: p for n, p in sigmoids(scene).items() if p > 0.97}
    assert len(expected) > 1
    command = ("explain", scene, grey, "--activation", "sigmoid", "--device", "cpu")
    result = invoke(*command, "--above", 0.97, "--json", "--out", tmp_path / "out")
    assert result.exit_code == 1
    first, second = map(json.loads, result.stdout.splitlines())
    assert {t["label"] for t in first["targets"]} == set(expected)
    assert second["image"] == str(grey)
    assert "no class has a probability above 0.97; the largest is 0." in second["error"]
    assert not (tmp_path / "out" / "grey").exists()
    for other in (("--top-k", 2), ("--target", "banana"), ("--text", "a cat")):
        with pytest.raises(TargetError, match="--above"):
            stdout(*command, "--above", 0.5, *other)


def test_explain_prompts(capsys: pytest.CaptureFixture[str], scene: Path, tmp_path: Path) -> None:
    command = ("explain", scene, "-m", "open_clip/ViT-S-32", "--random-weights")
    code, out, err = run_main(
        capsys, *command, "--text", "a cat", "--text", "a dog", "--out", tmp_path / "out"
    )
    assert (code, err) == (0, "")
    assert "a cat" in out
    manifest = json.loads(next((tmp_path / "out").rglob("manifest.json")).read_text())
    kinds = [(target["kind"], target["prompt"]) for target in manifest["targets"]]
    assert kinds == [("text", "a cat"), ("text", "a dog")]
    assert manifest["model"]["weights"] == "random"
    for arguments, words in (
        (command, "compares images with text and has no classes"),
        ((*command, "-t", "cat", "--text", "a cat"), "give one"),
        (("explain", scene, "--text", "a cat"), "demo has classes and reads no text"),
    ):
        code, _, err = run_main(capsys, *arguments, "--out", tmp_path / "none")
        assert code == 1
        assert words in err
        assert not (tmp_path / "none").exists()
