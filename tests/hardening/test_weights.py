"""Weights that want to run code, or more memory than they are worth."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.models.checkpoint import fit, read_checkpoint
from gradtoken.models.hub import weights_only

_SMALL = {
    "img_size": 16,
    "patch_size": 8,
    "embed_dim": 8,
    "depth": 1,
    "num_heads": 2,
    "num_classes": 2,
}


class _Code:
    """Unpickled, it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.place,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_read_checkpoint_runs_no_pickle(tmp_path: Path, legacy: bool) -> None:
    place, path = tmp_path / "ran", tmp_path / "w.pt"
    state = {"a": torch.zeros(3), "b": _Code(place)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match="could run code"):
        read_checkpoint(path)
    assert not place.exists()
    torch.load(path, weights_only=False)
    assert place.exists(), "or the test shows nothing"


def test_load_runs_no_cached_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    url = torchvision.models.get_model_weights("vit_b_16").DEFAULT.url
    cached = tmp_path / "checkpoints" / url.rsplit("/", 1)[-1]
    cached.parent.mkdir()
    torch.save({"a": _Code(tmp_path / "ran")}, cached)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ModelError, match=r"cached weights of torchvision/vit_b_16.*could run code"):
        gradtoken.load("torchvision/vit_b_16", device="cpu")
    assert not (tmp_path / "ran").exists()


def test_weights_only_overrides_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pt"
    torch.save({"a": _Code(tmp_path / "ran")}, path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with weights_only(), pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=False)
    assert not (tmp_path / "ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_load_runs_no_code_of_hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    config = {
        "model_type": "mine",
        "architectures": ["Mine"],
        "auto_map": {"AutoConfig": "mine.Mine", "AutoModelForImageClassification": "mine.Mine"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked whether to run code"))
    with pytest.raises(ModelError, match=r"code of its own, which gradtoken does not run.*wrap\("):
        gradtoken.load(f"hf/{tmp_path}", device="cpu")
    assert not (tmp_path / "ran").exists()


def test_read_checkpoint_rejects_zip_bomb(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.pt", tmp_path / "bomb.pt"
    torch.save({"a": torch.zeros(1 << 20)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert path.stat().st_size < 1 << 17
    with pytest.raises(ModelError, match=r"would unpack to 4,1.* bytes, more than it holds"):
        read_checkpoint(path)
    assert read_checkpoint(plain)[0]["a"].shape == (1 << 20,)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(1 << 36, 8),
        torch.zeros(3, 3).to_sparse(),
        torch.zeros(3, device="meta"),
        torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.quint8),
    ],
    ids=["repeats one number", "sparse", "meta", "quantised"],
)
def test_read_checkpoint_rejects_odd_tensors(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({"head.weight": tensor}, tmp_path / "w.pt")
    with pytest.raises(ModelError):
        read_checkpoint(tmp_path / "w.pt")


def _described(path: Path, **changes: Any) -> Path:
    from timm.models.vision_transformer import VisionTransformer

    state = VisionTransformer(**_SMALL).state_dict()
    description = {
        "architecture": _SMALL,
        "classes": ["a", "b"],
        "input_size": 16,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        **changes,
    }
    save_file(state, path, {"gradtoken": json.dumps(description)})
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": {**_SMALL, "embed_dim": 1 << 20}}, "the model's"),
        ({"architecture": {**_SMALL, "embed_dim": 1 << 30}}, "overflowed"),
        ({"architecture": {**_SMALL, "num_classes": 1 << 40}}, "the model's"),
        ({"architecture": {**_SMALL, "depth": 1 << 30}}, "its depth is 1073741824"),
        ({"architecture": {**_SMALL, "img_size": 1 << 20}}, "the model's"),
        ({"architecture": [1]}, "does not describe its architecture"),
        ({"input_size": 1 << 20}, "its input_size is 1048576"),
        ({"mean": [0.5, float("nan"), 0.5]}, "its mean is not a number for each of 3 channels"),
        ({"std": [0.5, 0, 0.5]}, "its std holds a zero"),
        ({"classes": "ab"}, "its classes are no list"),
        ({"classes": ["a", "b" * 2000]}, "a name of more than 1000 letters"),
        ({"classes": ["a"]}, "1 labels were given for the 2 classes"),
    ],
)
def test_load_rejects_excessive_description(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        gradtoken.load(_described(tmp_path / "m.safetensors", **changes), device="cpu")


def test_load_accepts_valid_description(tmp_path: Path) -> None:
    model = gradtoken.load(_described(tmp_path / "m.safetensors"), device="cpu")
    assert list(model.labels) == ["a", "b"]
    assert not any(parameter.is_meta for parameter in model.module.parameters())


def test_read_checkpoint_rejects_deeply_nested_metadata(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "m.safetensors", {"gradtoken": "[" * 100_000})
    with pytest.raises(ModelError, match="is no readable safetensors file"):
        read_checkpoint(tmp_path / "m.safetensors")


def test_fit_rejects_sparse_weights() -> None:
    state = {"weight": torch.zeros(2, 2).to_sparse(), "bias": torch.zeros(2)}
    with pytest.raises(ModelError, match="do not go into the model"):
        fit(nn.Linear(2, 2), state, "the model")


@pytest.mark.parametrize("head", [torch.zeros(()), torch.zeros(1 << 40, 0)], ids=["none", "empty"])
@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("timm/vit_tiny_patch16_224", "head.weight"),
        ("torchvision/vit_b_16", "heads.head.weight"),
    ],
)
def test_load_rejects_head_without_classes(
    tmp_path: Path, spec: str, name: str, head: torch.Tensor
) -> None:
    torch.save({name: head}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="the checkpoint has no"):
        gradtoken.load(spec, checkpoint=tmp_path / "w.pt", device="cpu")


def test_load_rejects_large_head_by_shape(tmp_path: Path) -> None:
    torch.save({"head.weight": torch.zeros(1 << 20, 1)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="does not fit timm/vit_tiny_patch16_224"):
        gradtoken.load("timm/vit_tiny_patch16_224", checkpoint=tmp_path / "w.pt", device="cpu")


def test_load_rejects_unknown_tag() -> None:
    with pytest.raises(
        ModelError, match=r"no weights 'nothing' of vit_base_patch16_224; there are"
    ):
        gradtoken.load("timm/vit_base_patch16_224.nothing")


def test_load_rejects_image_size_above_pixel_limit() -> None:
    with pytest.raises(ModelError, match="is more than 100,000,000 pixels"):
        gradtoken.load("demo", image_size=1_000_000_000)
