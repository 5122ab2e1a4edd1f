"""Explanations by models of other than three channels, from wrapping to the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.transforms import v2

import gradtoken
from gradtoken import Preprocess
from gradtoken.adapters.captum import Attribution
from gradtoken.attribution import make_method
from gradtoken.checking import check
from gradtoken.errors import ImageError, ModelError
from gradtoken.images.channels import as_channels
from gradtoken.metrics import cascading_randomisation, deletion, filled, input_shift, insertion
from gradtoken.metrics.grid_pointing import mosaic
from gradtoken.models import Model
from gradtoken.report import Report
from tests.conftest import tiny_vit
from tests.images.multichannel import SIZE, array, channel_transform, noise, rgb, wrapped
from tests.models.zoo import HF, seeded

TO_TENSOR = (v2.Resize(SIZE), v2.ToImage(), v2.ToDtype(torch.float32, scale=True))


def _as_read(model: Model, value: np.ndarray) -> Any:
    if model.preprocess.takes_images:
        return Image.fromarray((value[..., 0] * 255).round().astype(np.uint8)).convert("RGB")
    return as_channels(value, model.channels)


def _with_channels(module: nn.Module, channels: int) -> nn.Module:
    config = module.config
    config.num_channels = channels
    return type(module)(config)


@pytest.mark.parametrize("channels", [1, 2, 4, 12, 13])
def test_explain_equals_autograd_for_any_channels(channels: int) -> None:
    """The map of input x gradient, pooled to tokens, is plain autograd's."""
    model, batch = gradtoken.wrap(tiny_vit(in_chans=channels)), noise(channels)
    assert model.channels == channels
    explanation = gradtoken.explain(model, batch, [1, 2], method="input-x-gradient")
    pixels = batch.clone().requires_grad_()
    for k, target in enumerate((1, 2)):
        (grad,) = torch.autograd.grad(model.module(pixels)[:, target].sum(), pixels)
        by_hand = (grad * batch).sum(1).unflatten(1, (8, 8)).unflatten(3, (8, 8)).sum((2, 4))
        torch.testing.assert_close(explanation.tokens[:, k].double(), by_hand, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(explanation.scores, model.module(batch)[:, [1, 2]])


@pytest.mark.parametrize("channels", [1, 4])
def test_check_supports_all_methods_for_other_channels(channels: int) -> None:
    model = wrapped(channels)
    result = check(model)
    said = {name: words for name, words in result.methods.items() if words != "works"}
    assert {words.partition(" gave ")[2] for words in said.values()} <= {"a blank map."}
    batch = noise(channels, 1)
    for name in result.methods:
        method = make_method(name, **make_method(name).trial)
        tokens = gradtoken.explain(model, batch, [1], method=method).tokens
        assert tokens.shape == (1, 1, 8, 8)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_explain_arrays_of_any_channels(channels: int, tmp_path: Path) -> None:
    model, value = wrapped(channels), array(channels)
    explanation = gradtoken.explain(model, [value, value[:, ::-1].copy()], [1, 7])
    tensor = model.preprocess(_as_read(model, value))
    assert tensor.shape == (channels, *SIZE)
    direct = gradtoken.explain(model, tensor[None].double(), [1, 7])
    torch.testing.assert_close(explanation.tokens[:1], direct.tokens, rtol=1e-3, atol=1e-5)
    assert explanation.relevance.shape == (2, 2, 60, 90)
    assert explanation.overlay(1).size == (90, 60)
    assert explanation.boxes[0].visible((90, 60)) == (0, 0, 90, 60) or channels == 1
    assert explanation.figure() is not None
    folders = explanation.save(tmp_path / "out")
    records = [json.loads((folder / "manifest.json").read_text()) for folder in folders]
    assert records[0]["input"]["sha256"] != records[1]["input"]["sha256"]
    with Report(tmp_path / "r.html") as report:
        for item in explanation:
            report.add(item)
    assert (tmp_path / "r.html").stat().st_size > 1000
    assert direct.overlay().size == SIZE


@pytest.mark.parametrize(
    "transform",
    [
        v2.Compose([v2.Grayscale(1), *TO_TENSOR]),
        v2.Compose(TO_TENSOR),
    ],
    ids=["made grey by the transform", "of grey images"],
)
@pytest.mark.parametrize("kind", ["timm", "own"])
def test_explain_with_custom_preprocess_of_one_channel(transform: v2.Compose, kind: str) -> None:
    module = tiny_vit(in_chans=1)
    value: nn.Module = module if kind == "timm" else nn.Sequential(module)
    model = gradtoken.wrap(value, preprocess=transform)
    assert model.channels == 1
    image = rgb().convert("L")
    tensor = v2.Compose(TO_TENSOR)(image)
    explanation = gradtoken.explain(model, image, 1)
    torch.testing.assert_close(
        explanation.tokens,
        gradtoken.explain(model, tensor[None].double(), 1).tokens,
        rtol=1e-3,
        atol=1e-4,
    )
    assert explanation.relevance.shape == (1, 1, 60, 90)


def test_wrap_custom_module_of_twelve_channels() -> None:
    own = nn.Sequential(tiny_vit(in_chans=12))
    for preprocess in (Preprocess(channel_transform(12), channels=12), channel_transform(12)):
        model = gradtoken.wrap(own, preprocess=preprocess)
        assert model.channels == 12
        assert gradtoken.explain(model, array(12), 1).relevance.shape == (1, 1, 60, 90)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(ModelError, match=r"fails on an RGB image .*channels=12"):
        gradtoken.wrap(linear, preprocess=channel_transform(12))


def test_explain_module_that_expands_its_channel() -> None:
    class Repeated(VisionTransformer):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.expand(-1, 3, -1, -1))

    with torch.random.fork_rng():
        module = Repeated(
            img_size=64, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=10
        ).eval()
    grey = v2.Compose([v2.Grayscale(1), *TO_TENSOR])
    model = gradtoken.wrap(module, preprocess=Preprocess(grey, channels=1))
    assert gradtoken.explain(model, rgb(), 1).tokens.shape == (1, 1, 8, 8)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", ["ViTForImageClassification", "SwinForImageClassification"])
def test_explain_hf_models_of_other_channels(name: str, channels: int) -> None:
    module = seeded(lambda: _with_channels(HF[name].build(), channels))
    model = gradtoken.wrap(module)
    assert model.channels == channels
    assert gradtoken.explain(model, noise(channels), 1).tokens.shape == (2, 1, 4, 4)
    if channels == 1:
        assert gradtoken.explain(model, rgb(), 1).relevance.shape == (1, 1, 60, 90)
    else:
        with pytest.raises(ImageError, match="takes 4 channels, and this image has 3"):
            gradtoken.explain(model, rgb(), 1)


def test_explain_torchvision_model_of_one_channel() -> None:
    from torchvision.models import VisionTransformer as Vit

    module = Vit(
        image_size=64,
        patch_size=16,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        mlp_dim=32,
        num_classes=5,
    )
    module.conv_proj = nn.Conv2d(1, 32, 16, 16)
    model = gradtoken.wrap(module)
    assert model.channels == 1
    assert gradtoken.explain(model, rgb(), 1).tokens.shape == (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("channels", "value", "words"),
    [
        (
            4,
            lambda: noise(3),
            r"shape \(2, 3, 64, 64\).*takes 4 channels, and this has 3; give \(B, 4",
        ),
        (1, lambda: noise(3), "takes 1 channels, and this has 3"),
        (3, lambda: noise(4), "takes 3 channels, and this has 4"),
        (4, lambda: rgb(), r"takes 4 channels, and this image has 3; give an array \(H, W, 4\)"),
        (4, lambda: array(3), r"shape \(60, 90, 3\) .* takes 4 channels"),
        (4, lambda: array(1)[..., 0], r"shape \(60, 90\) .* takes 4 channels"),
        (3, lambda: array(12), r"shape \(60, 90, 12\) .* takes 3 channels"),
        (1, lambda: array(12), r"shape \(60, 90, 12\) .* takes 1 channels"),
        (4, lambda: np.full((8, 8, 4), np.nan), "NaN or infinite"),
        (4, lambda: np.zeros((8, 8, 4), np.int32), "array of int32 is no image"),
        (4, lambda: np.zeros((0, 8, 4)), "takes 4 channels"),
    ],
)
def test_explain_rejects_other_channels(channels: int, value: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        gradtoken.explain(wrapped(channels), value(), 1)


def test_explain_rejects_arrays_without_normalisation() -> None:
    model = gradtoken.wrap(tiny_vit(in_chans=12))
    with pytest.raises(ModelError, match=r"how 12 channels are resized.*channels=12"):
        gradtoken.explain(model, array(12), 1)
    assert check(model, ["gradtoken", "rollout", "gae"]).works


def test_metrics_support_four_channels() -> None:
    model, batch = wrapped(4), noise(4)
    maps = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([1, 2])
    normal = {"mean": model.preprocess.mean, "std": model.preprocess.std}
    for metric in (insertion, deletion):
        assert metric(model, batch, maps, classes, steps=2, **normal).shape == (2, 3)
    black = filled(batch, "black", [0.1, 0.2, 0.3, 0.4], [0.5])
    assert black[0, :, 0, 0].tolist() == pytest.approx([-0.2, -0.4, -0.6, -0.8])
    assert mosaic(noise(4, 4), (32, 32)).shape == (1, 4, 32, 32)

    def explain(item: Model, some: Tensor) -> Tensor:
        return gradtoken.explain(item, some, 1).tokens[:, 0].flatten(1)

    assert float(input_shift(model, batch, explain).max()) < 1e-3
    assert len(cascading_randomisation(model, batch, explain)) == 6
    assert Attribution(model, "gae").attribute(batch, target=1).shape == batch.shape


@pytest.mark.parametrize("channels", [1, 4])
def test_load_checkpoint_of_other_channels(channels: int, tmp_path: Path) -> None:
    import timm

    module = timm.create_model(
        "vit_tiny_patch16_224", num_classes=3, in_chans=channels, img_size=64
    )
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    model = gradtoken.load("timm/vit_tiny_patch16_224", checkpoint=tmp_path / "w.safetensors")
    assert model.channels == channels
    batch = noise(channels).float()
    with torch.no_grad():
        torch.testing.assert_close(model(batch.to(model.device)).cpu(), module.eval()(batch))
