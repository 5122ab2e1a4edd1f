"""How logits become probabilities: said by the caller, by the library, or by one logit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

import gradtoken
from gradtoken.errors import ModelError
from tests.conftest import images_for, tiny_vit
from tests.models.reading.test_propose import Home, preprocess
from tests.models.zoo import ZOO, seeded

_ARCHITECTURE = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 1}


def hf_vit(classes: int, problem: str | None = None) -> nn.Module:
    config = ViTConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=64,
        patch_size=16,
        num_labels=classes,
        problem_type=problem,
    )
    torch.manual_seed(0)
    return ViTForImageClassification(config).eval()


def described(path: Path, classes: int, **said: Any) -> Path:
    architecture = {**_ARCHITECTURE, "num_classes": classes}
    description = {
        "architecture": architecture,
        "classes": [f"class {i}" for i in range(classes)],
        "input_size": 16,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        **said,
    }
    state = VisionTransformer(**architecture).state_dict()
    save_file(state, path, {"gradtoken": json.dumps(description)})
    return path


@pytest.mark.parametrize(
    ("classes", "problem", "expected"),
    [
        (4, None, "softmax"),
        (4, "single_label_classification", "softmax"),
        (4, "multi_label_classification", "sigmoid"),
        (4, "regression", "none"),
        (1, None, "sigmoid"),
        (1, "regression", "none"),
    ],
)
def test_detect_activation_of_transformers_problem_type(
    classes: int, problem: str | None, expected: str
) -> None:
    assert gradtoken.wrap(hf_vit(classes, problem)).activation == expected


def test_load_detects_activation_of_transformers_folder(tmp_path: Path) -> None:
    hf_vit(3, "multi_label_classification").save_pretrained(tmp_path / "model")
    spec = f"hf/{tmp_path / 'model'}"
    assert gradtoken.load(spec, device="cpu").activation == "sigmoid"
    assert gradtoken.load(spec, device="cpu", activation="softmax").activation == "softmax"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "softmax"),
        ({"problem_type": "multi_label_classification"}, "sigmoid"),
        ({"activation": "none", "problem_type": "multi_label_classification"}, "none"),
        ({"activation": None, "problem_type": ["odd"]}, "softmax"),
    ],
)
def test_detect_activation_of_timm_config(config: dict[str, Any], expected: str) -> None:
    module = tiny_vit()
    module.pretrained_cfg = config
    assert gradtoken.wrap(module).activation == expected


def test_detect_activation_of_one_logit() -> None:
    assert gradtoken.wrap(tiny_vit(num_classes=1)).activation == "sigmoid"
    own = seeded(Home)
    assert gradtoken.wrap(own, preprocess=preprocess).activation == "softmax"
    own.head = nn.Linear(32, 1).double()
    assert gradtoken.wrap(own, preprocess=preprocess).activation == "sigmoid"


def test_wrap_takes_requested_activation() -> None:
    own = seeded(Home)
    for said in ("softmax", "sigmoid", "none"):
        assert gradtoken.wrap(tiny_vit(), activation=said).activation == said
        assert gradtoken.wrap(own, preprocess=preprocess, activation=said).activation == said
        assert gradtoken.load("demo", device="cpu", activation=said).activation == said


def test_load_reads_activation_of_described_file(tmp_path: Path) -> None:
    path = described(tmp_path / "m.safetensors", 3, activation="sigmoid")
    assert gradtoken.load(path, device="cpu").activation == "sigmoid"
    assert gradtoken.load(path, device="cpu", activation="none").activation == "none"
    assert gradtoken.load("demo", device="cpu").activation == "softmax"
    odd = described(tmp_path / "odd.safetensors", 3, activation="logistic")
    with pytest.raises(ModelError, match="activation is 'logistic'; it can be"):
        gradtoken.load(odd, device="cpu")


def test_load_reads_activation_of_checkpoint(tmp_path: Path) -> None:
    said = {"gradtoken": json.dumps({"activation": "sigmoid"})}
    torch.manual_seed(0)
    name = "vit_tiny_patch16_224"
    save_file(timm.create_model(name, num_classes=3).state_dict(), tmp_path / "c.safetensors", said)
    actual = gradtoken.load(f"timm/{name}", checkpoint=tmp_path / "c.safetensors", device="cpu")
    assert actual.activation == "sigmoid"


@pytest.mark.parametrize("given", ["relu", "Sigmoid", True, 1, ["sigmoid"]])
def test_wrap_rejects_unknown_activation(given: Any) -> None:
    words = "it can be 'softmax'.*'sigmoid'.*'none'"
    with pytest.raises(ModelError, match=words):
        gradtoken.wrap(tiny_vit(), activation=given)
    with pytest.raises(ModelError, match=words):
        gradtoken.load("timm/no-such-model", activation=given)


def test_wrap_rejects_softmax_of_one_logit(tmp_path: Path) -> None:
    words = "one logit, whose softmax is 1 for every image; use activation='sigmoid'"
    with pytest.raises(ModelError, match=words):
        gradtoken.wrap(tiny_vit(num_classes=1), activation="softmax")
    path = described(tmp_path / "m.safetensors", 1, activation="softmax")
    with pytest.raises(ModelError, match=words):
        gradtoken.load(path, device="cpu")


def test_activation_of_model_with_prompts() -> None:
    module = seeded(ZOO["open_clip ViT"].build)
    assert gradtoken.wrap(module).activation == "none"
    with pytest.raises(ModelError, match="compares images with text and has no classes"):
        gradtoken.wrap(module, activation="sigmoid")


def test_model_repr_shows_activation() -> None:
    assert "10 classes (sigmoid), " in repr(gradtoken.wrap(tiny_vit(), activation="sigmoid"))
    assert "10 classes, " in repr(gradtoken.wrap(tiny_vit()))


def test_probability_of_one_logit() -> None:
    module = hf_vit(1)
    module.classifier.bias.data.fill_(-5)
    images = images_for((64, 64)).float()
    with torch.no_grad():
        expected = module(images).logits.sigmoid()
    actual = gradtoken.explain(gradtoken.wrap(module), images)
    torch.testing.assert_close(actual.probabilities, expected)
    assert float(expected.max()) < 0.02


def test_probabilities_of_multi_label_model() -> None:
    module = hf_vit(4, "multi_label_classification")
    module.classifier.bias.data.copy_(torch.tensor([4.0, 4, 4, -4]))
    images = images_for((64, 64)).float()
    with torch.no_grad():
        expected = module(images).logits.sigmoid()
    actual = gradtoken.explain(gradtoken.wrap(module), images, [0, 1, 2, 3])
    torch.testing.assert_close(actual.probabilities, expected)


def test_probabilities_of_regression() -> None:
    actual = gradtoken.explain(gradtoken.wrap(tiny_vit(), activation="none"), images_for((64, 64)))
    assert actual.probabilities.isnan().all()
    assert actual.to_dict()[0]["targets"][0]["probability"] is None
