"""Checkpoints as trainers write them: their names, what is in them, and the names of tensors."""

from __future__ import annotations

import pathlib
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.models.checkpoint import own_names, read_checkpoint

NAME = "vit_tiny_patch16_224"
OWN = ("head.weight", "head.bias", "blocks.0.norm.weight")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return timm.create_model(NAME, num_classes=3, img_size=32, depth=1).state_dict()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The architecture with one block and four patches."""
    create = timm.create_model

    def made(name: str, **options: Any) -> torch.nn.Module:
        return create(name, **{"img_size": 32, "depth": 1, **options})

    monkeypatch.setattr(timm, "create_model", made)


def under(front: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{front}{key}": value for key, value in state.items()}


def averaged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value + 1 for key, value in state.items()}


LAYOUTS: dict[str, Any] = {
    "last.ckpt": lambda s: {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": under("model.", s),
        "hyper_parameters": {"lr": 1e-3, "name": "mine"},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
    },
    "net.ckpt": lambda s: {"state_dict": under("net.", s)},
    "compiled.ckpt": lambda s: {"state_dict": under("model._orig_mod.", s)},
    "model_best.pth.tar": lambda s: {
        "arch": NAME,
        "epoch": 3,
        "state_dict": s,
        "args": Namespace(model=NAME, lr=0.1),
        "state_dict_ema": averaged(s),
    },
    "checkpoint.pth": lambda s: {
        "model": s,
        "model_ema": averaged(s),
        "args": Namespace(input_size=224),
    },
    "averages-alone.pth": lambda s: {"model_ema": s, "epoch": 1},
    "parallel.pt": lambda s: under("module.", s),
    "tutorial.tar": lambda s: {"epoch": 1, "model_state_dict": s, "loss": 0.5},
    "deepspeed.pt": lambda s: {"module": under("module.", s), "dp_world_size": 1},
    "pytorch_model.bin": lambda s: s,
    "blocks-compiled.pt": lambda s: {
        key.replace("blocks.0.", "blocks.0._orig_mod."): value for key, value in s.items()
    },
    "fsdp.pt": lambda s: under("_fsdp_wrapped_module._orig_mod.", s),
}


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_load_checkpoint_of_trainer(name: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(LAYOUTS[name](weights), tmp_path / name)
    model = gradtoken.load(f"timm/{NAME}", checkpoint=tmp_path / name, device="cpu")
    loaded = model.module.state_dict()
    assert list(loaded) == list(weights)
    assert all(torch.equal(loaded[key], value) for key, value in weights.items())


def test_load_safetensors_with_prefix(weights: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(under("model.", weights), tmp_path / "w.safetensors")
    model = gradtoken.load(f"timm/{NAME}", checkpoint=tmp_path / "w.safetensors", device="cpu")
    assert torch.equal(model.module.head.weight, weights["head.weight"])


def test_load_checkpoint_with_prefix_of_other_libraries(tmp_path: Path) -> None:
    import open_clip
    import torchvision.models as zoo

    tv = zoo.vit_b_32(weights=None, num_classes=2)
    torch.save({"state_dict": under("model.", tv.state_dict())}, tmp_path / "tv.ckpt")
    actual = gradtoken.load("torchvision/vit_b_32", checkpoint=tmp_path / "tv.ckpt", device="cpu")
    assert torch.equal(actual.module.heads.head.weight, tv.heads.head.weight)
    clip = open_clip.create_model("ViT-S-32")
    torch.save({"state_dict": under("module.", clip.state_dict())}, tmp_path / "epoch_1.pt")
    actual = gradtoken.load("open_clip/ViT-S-32", checkpoint=tmp_path / "epoch_1.pt", device="cpu")
    assert torch.equal(actual.module.visual.proj, clip.visual.proj)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("model.head.weight", "model.head.bias"), OWN[:2]),
        (("module.model.head.weight", "module.model.head.bias"), OWN[:2]),
        (("model.head.weight", "criterion.weight"), ("model.head.weight", "criterion.weight")),
        (("model.head.weight", "head.bias"), ("model.head.weight", "head.bias")),
        (("head.weight", "head.bias"), OWN[:2]),
        (("other.fc.weight", "other.fc.bias"), ("other.fc.weight", "other.fc.bias")),
        (("weight",), ("weight",)),
        (("blocks.0._orig_mod.norm.weight", "head.weight"), (OWN[2], OWN[0])),
        (("a._orig_mod.b", "a.b"), ("a._orig_mod.b", "a.b")),
    ],
)
def test_own_names_drops_common_prefix(keys: tuple[str, ...], expected: tuple[str, ...]) -> None:
    state = {key: torch.tensor(float(index)) for index, key in enumerate(keys)}
    actual = own_names(state, OWN)
    assert {key: float(value) for key, value in actual.items()} == {
        key: float(index) for index, key in enumerate(expected)
    }


def test_load_reports_original_names_of_misfit(weights: dict[str, Tensor], tmp_path: Path) -> None:
    other = {**under("model.", weights), "model.extra.weight": torch.zeros(2)}
    torch.save({"state_dict": other}, tmp_path / "more.ckpt")
    with pytest.raises(ModelError, match=r"it has 'extra\.weight', which the model has not"):
        gradtoken.load(f"timm/{NAME}", checkpoint=tmp_path / "more.ckpt")
    beside = {**under("model.", weights), "criterion.weight": torch.zeros(2)}
    torch.save({"state_dict": beside}, tmp_path / "loss.ckpt")
    with pytest.raises(ModelError, match=r"no 'head\.weight'.*it begins with model\.cls_token"):
        gradtoken.load(f"timm/{NAME}", checkpoint=tmp_path / "loss.ckpt")


def test_read_checkpoint_rejects_pickled_objects(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": pathlib.Path("x")}, path)
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    said = str(caught.value)
    assert f"last.ckpt holds more than tensors (pathlib.{type(path).__name__})" in said.replace(
        "pathlib._local.", "pathlib."
    )
    assert "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt')" in said
    content = torch.load(path, weights_only=False)["state_dict"]  # the advice
    torch.save(content, tmp_path / "weights.pt")
    assert list(read_checkpoint(tmp_path / "weights.pt")[0]) == ["a"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"state_dict": {"a": torch.zeros(1)}, "model": {"a": torch.ones(1)}},
            r"several sets of weights \(state_dict, model\); save the one you mean",
        ),
        (
            {"state_dict_ema": {"a": torch.zeros(1)}, "model_ema": {"a": torch.ones(1)}},
            r"several sets of weights \(state_dict_ema, model_ema\)",
        ),
        (
            {"student": {"a": torch.zeros(1)}, "teacher": {"a": torch.zeros(1)}, "epoch": 1},
            r"holds no tensors \(it holds 'student', 'teacher', 'epoch'\)",
        ),
        ({"model": {"depth": 3}, "state_dict": {}}, "holds no tensors"),
    ],
)
def test_read_checkpoint_rejects_ambiguous_weights(
    content: Any, words: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=words):
        read_checkpoint(tmp_path / "w.pt")


def test_read_checkpoint_rejects_folder(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").mkdir()
    with pytest.raises(ModelError, match=r"last\.ckpt is a folder, not a checkpoint file"):
        read_checkpoint(tmp_path / "last.ckpt")
