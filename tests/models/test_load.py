"""Loading by name, from files, and wrapping; and refusing what cannot be explained."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import gradtoken
from gradtoken.datasets import Scenes
from gradtoken.errors import ModelError
from gradtoken.models.timm.build import build_named
from tests.conftest import images_for
from tests.models.own import random_timm

NAME = "vit_tiny_patch16_224"


def test_load_demo() -> None:
    model = gradtoken.load("demo")
    assert model.spec == "demo"
    assert len(model.labels) == len(Scenes().classes)
    assert model.dtype == torch.float32
    assert not model.module.training
    assert gradtoken.explain(model, Image.new("RGB", (50, 70)), "rocket").tokens.shape[-2:] == (
        14,
        14,
    )


def test_model_repr() -> None:
    assert repr(gradtoken.load("demo", device="cpu")) == (
        "Model('demo': VisionTransformer, 6 blocks, class token, 42 classes, torch.float32 on cpu)"
    )


def test_load_dtype_and_device() -> None:
    model = gradtoken.load("demo", device="cpu", dtype="bfloat16")
    assert (model.dtype, model.device.type) == (torch.bfloat16, "cpu")
    assert gradtoken.load("demo", dtype=torch.float64).dtype == torch.float64
    with pytest.raises(ModelError, match="dtype 'int8' cannot be used; choose from"):
        gradtoken.load("demo", dtype="int8")
    with pytest.raises(ModelError, match="device 'warp' cannot be used"):
        gradtoken.load("demo", device="warp")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="device 'cuda' cannot be used"):
            gradtoken.load("demo", device="cuda")


def test_load_bfloat16_ranks_tokens_as_float32() -> None:
    maps = []
    scene = Scenes("test", objects=2)[0]
    for dtype in ("float32", "bfloat16"):
        model = gradtoken.load("demo", device="cpu", dtype=dtype)
        actual = gradtoken.explain(model, scene.image, list(scene.labels))
        maps.append(actual.tokens[0].flatten(1).argsort(-1).argsort(-1).double())
    for one, other in zip(*maps, strict=True):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] >= 0.99


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("dem", "no model is named 'dem'; did you mean 'demo'"),
        (NAME, f"did you mean 'timm/{NAME}'"),
        ("timm/vit_tinny_patch16_224", "did you mean 'vit_tiny_patch16_224'"),
        ("timm/qqqqqqqqqq", "`gradtoken models` lists them"),
        ("nowhere.safetensors", "there is no checkpoint file nowhere.safetensors"),
    ],
)
def test_load_unknown_name_suggests_nearest(spec: str, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        gradtoken.load(spec)
    assert words in str(caught.value)


def test_load_reports_weights_that_cannot_be_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setattr("gradtoken.models.hub.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    with pytest.raises(ModelError) as caught:
        gradtoken.load(f"timm/{NAME}")
    for word in ("cannot be downloaded", "--model demo", "checkpoint=FILE"):
        assert word in str(caught.value)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path / f"models--timm--{NAME}.augreg_in21k_ft_in1k").mkdir()
    calls = []
    monkeypatch.setattr(timm, "create_model", lambda *_, **options: calls.append(options))
    build_named(NAME, True, {})
    assert calls == [{"pretrained": True}]


def test_load_reports_download_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])

    create = timm.create_model

    def broken(name: str, pretrained: bool = False, **options: object) -> nn.Module:
        if pretrained:
            raise OSError("connection reset")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(ModelError, match="cannot be downloaded"):
        gradtoken.load(f"timm/{NAME}")


@pytest.fixture(scope="module")
def fine_tuned() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(NAME, num_classes=7).eval()


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "nested.pth", "parallel.pt"])
def test_load_checkpoint_of_named_architecture(
    suffix: str, fine_tuned: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / f"mine.{suffix}"
    state = fine_tuned.state_dict()
    if suffix == "safetensors":
        save_file(state, path)
    elif suffix == "nested.pth":
        torch.save({"epoch": 3, "state_dict": state}, path)
    elif suffix == "parallel.pt":
        torch.save({f"module.{key}": value for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    model = gradtoken.load(f"timm/{NAME}", checkpoint=path, device="cpu")
    assert list(model.labels) == [f"class {i}" for i in range(7)]
    images = images_for((224, 224), 1).float()
    with torch.no_grad():
        torch.testing.assert_close(model(images), fine_tuned(images))
    assert gradtoken.explain(model, images, [1, 2]).tokens.shape == (1, 2, 14, 14)


def test_load_checkpoint_of_another_input_size(tmp_path: Path) -> None:
    save_file(
        timm.create_model(NAME, num_classes=3, img_size=96).state_dict(), tmp_path / "s.safetensors"
    )
    model = gradtoken.load(f"timm/{NAME}", checkpoint=tmp_path / "s.safetensors")
    assert model.preprocess(Image.new("RGB", (300, 200))).shape == (3, 96, 96)


def test_load_checkpoint_labels(fine_tuned: nn.Module, tmp_path: Path) -> None:
    names = [f"bird {i}" for i in range(7)]
    save_file(
        fine_tuned.state_dict(),
        tmp_path / "b.safetensors",
        metadata={"gradtoken": json.dumps({"classes": names})},
    )
    model = gradtoken.load(f"timm/{NAME}", checkpoint=tmp_path / "b.safetensors")
    assert list(model.labels) == names


def test_load_rejects_bad_checkpoint(fine_tuned: nn.Module, tmp_path: Path) -> None:
    import pickle

    files = {
        "other.safetensors": (lambda p: save_file(_other_architecture(), p), "does not fit timm/"),
        "headless.pt": (lambda p: torch.save({"a": torch.zeros(1)}, p), "has no 'head.weight'"),
        "cut.safetensors": (lambda p: p.write_bytes(b"\x10\0\0"), "no readable safetensors"),
        "junk.pt": (lambda p: p.write_bytes(b"junk"), "junk.pt"),
        "code.pt": (lambda p: p.write_bytes(pickle.dumps(Path)), "code.pt"),
        "module.pt": (lambda p: torch.save(fine_tuned, p), "could run code"),
        "list.pt": (lambda p: torch.save([torch.zeros(1)], p), "holds a list, not a state dict"),
        "none.pt": (lambda p: torch.save({"epoch": 3}, p), "holds no tensors"),
        "numbers.pt": (lambda p: torch.save({0: torch.zeros(1)}, p), "has no 'head.weight'"),
        "weights.h5": (lambda p: p.write_bytes(b""), "is no checkpoint by its name"),
    }
    for name, (write, words) in files.items():
        write(tmp_path / name)
        with pytest.raises(ModelError) as caught:
            gradtoken.load(f"timm/{NAME}", checkpoint=tmp_path / name)
        assert words in str(caught.value), name


def _other_architecture() -> dict[str, torch.Tensor]:
    return timm.create_model("vit_small_patch16_224", num_classes=7).state_dict()


def test_load_checkpoint_needs_architecture(fine_tuned: nn.Module, tmp_path: Path) -> None:
    save_file(fine_tuned.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(ModelError, match=r"does not describe its architecture.*load\('timm/"):
        gradtoken.load(tmp_path / "bare.safetensors")
    with pytest.raises(ModelError, match=f"did you mean 'timm/{NAME}'"):
        gradtoken.load(NAME)
    with pytest.raises(ModelError, match="brings its own weights"):
        gradtoken.load("demo", checkpoint=tmp_path / "bare.safetensors")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18", "not a Vision Transformer that can be read: it has no 'blocks'"),
        ("levit_128s", "not a Vision Transformer that can be read"),
        ("tnt_s_patch16_224", "not a Vision Transformer that can be read"),
    ],
)
def test_load_rejects_unsupported_model(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        gradtoken.wrap(timm.create_model(name))


@pytest.mark.parametrize(
    ("name", "prefix", "grid"),
    [
        ("vit_tiny_patch16_224", 1, (14, 14)),
        ("deit_tiny_patch16_224", 1, (14, 14)),
        ("deit3_small_patch16_224", 1, (14, 14)),
        ("vit_small_patch14_reg4_dinov2", 5, (16, 16)),
        ("vit_base_patch32_clip_224", 1, (7, 7)),
    ],
)
def test_wrap_timm_model_with_class_token(name: str, prefix: int, grid: tuple[int, int]) -> None:
    options = {"num_classes": 11}
    if "dinov2" in name:
        options["img_size"] = 224
    model = gradtoken.wrap(random_timm(name, **options))
    actual = gradtoken.explain(model, Image.new("RGB", (300, 200), "teal"), [1, 2])
    assert actual.tokens.shape == (1, 2, *grid)
    assert model.layout.prefix == prefix


def test_load_rejects_other_architecture_before_weights() -> None:
    with pytest.raises(ModelError, match=r"timm/resnet18 \(ResNet\) is not a Vision Transformer"):
        gradtoken.load("timm/resnet18")
