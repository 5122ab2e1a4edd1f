"""Explanations as folders: complete, or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gradtoken
from gradtoken.models import Model


@pytest.mark.parametrize("name", ["cash$_$.png", "bad\udcff.png"])
def test_save_with_any_file_name(
    model: Model, picture: Image.Image, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    try:
        picture.save(path, format="PNG")
    except (OSError, UnicodeError):
        pytest.skip("this file system does not take the name")
    gradtoken.explain(model, path, 1).save(tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").exists()


def test_save_files_and_manifest(model: Model, picture: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    picture.save(path)
    explanation = gradtoken.explain(model, path, [1, gradtoken.contrast(2, 3)], beta=0.7)
    assert explanation.save(tmp_path / "out") == [tmp_path / "out"]
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [
        "00_class-1.png",
        "01_class-2-vs-class-3.png",
        "manifest.json",
        "summary.png",
        "tokens.npz",
    ]
    with np.load(tmp_path / "out" / "tokens.npz") as saved:
        assert np.array_equal(saved["tokens"], explanation.tokens[0].numpy())
        assert list(saved["labels"]) == explanation.labels[0]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["method"]["options"]["beta"] == 0.7
    assert manifest["model"]["spec"] == "VisionTransformer"
    assert torch.__version__.startswith(manifest["versions"]["torch"])
    assert manifest["targets"][0] == {
        "kind": "logit",
        "id": 1,
        "label": "class 1",
        "score": float(explanation.scores[0, 0]),
        "probability": float(explanation.probabilities[0, 0]),
        "evidence": explanation.evidence[0, 0].to_dict(),
    }
    assert manifest["targets"][1]["probability"] is None
    assert manifest["input"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    again = gradtoken.explain(
        model,
        manifest["input"]["file"],
        manifest["targets"][0]["id"],
        method=manifest["method"]["name"],
        **manifest["method"]["options"],
    )
    assert torch.equal(again.tokens[:, 0], explanation.tokens[:, 0])


def test_save_removes_earlier_overlays(model: Model, picture: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_text("not ours")
    gradtoken.explain(model, picture, [1, 2]).save(tmp_path)
    gradtoken.explain(model, picture, 3).save(tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert names == ["00_class-3.png", "mine.png", "summary.png"]


def test_manifest_has_sha256_of_file_as_read(
    model: Model, picture: Image.Image, tmp_path: Path
) -> None:
    path = tmp_path / "p.png"
    picture.save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    explanation = gradtoken.explain(model, path, 1)
    path.unlink()
    assert explanation.to_dict()[0]["input"]["sha256"] == digest
    explanation.save(tmp_path / "out")


def test_save_folder_per_image(model: Model, picture: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("p.png", "b/p.png"):
        picture.save(tmp_path / name)
    explanation = gradtoken.explain(
        model, [tmp_path / "p.png", tmp_path / "b" / "p.png", picture], 1
    )
    folders = explanation.save(tmp_path / "out")
    assert [f.name for f in folders] == ["p", "p-2", "image-0002"]
    assert all((f / "manifest.json").exists() for f in folders)


def test_save_leaves_nothing_after_error(
    model: Model, picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explanation = gradtoken.explain(model, picture, 1)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gradtoken.explanation.saving.np.savez_compressed", full_disk)
    with pytest.raises(gradtoken.OutputError, match="No space left on device"):
        explanation.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(gradtoken.OutputError, match="No space left on device"):
        explanation.save(tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_save_rejects_path_below_file(model: Model, picture: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(gradtoken.OutputError, match="cannot write to"):
        gradtoken.explain(model, picture, 1).save(tmp_path / "taken" / "out")


def test_safe_name_and_unique_names() -> None:
    from gradtoken.explanation.saving import safe_name, unique_names

    assert safe_name("../../etc/passwd") == "etc-passwd"
    assert safe_name("tabby, tabby cat") == "tabby"
    assert safe_name("...") == "target"
    assert len(safe_name("x" * 300)) == 60
    assert unique_names(["a", "A", "a"]) == ["a", "A-2", "a-3"]
