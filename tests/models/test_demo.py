"""The bundled model: small, ordinary, and good enough to be worth explaining."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
import torch
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import gradtoken
from gradtoken.datasets import Scenes

ASSETS = files("gradtoken.models") / "assets"


@pytest.fixture(scope="module")
def demo() -> gradtoken.Model:
    return gradtoken.load("demo", device="cpu")


def test_demo_file_is_small_and_self_describing() -> None:
    path = ASSETS / "demo.safetensors"
    assert len(path.read_bytes()) <= 15_000_000
    with safe_open(str(path), "pt") as opened:
        facts = json.loads(opened.metadata()["gradtoken"])
        assert all(opened.get_tensor(name).dtype == torch.float16 for name in opened.keys())  # noqa: SIM118
    assert facts["classes"] == list(Scenes().classes)
    assert facts["training"]["images"] > 100_000


def test_demo_is_plain_vision_transformer(demo: gradtoken.Model) -> None:
    assert type(demo.module) is VisionTransformer
    convolutions = [m for m in demo.module.modules() if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size == m.stride == (8, 8) for m in convolutions] == [True]
    assert demo.layout == gradtoken.TokenLayout(patch=(8, 8), prefix=1, readout=0)


def test_demo_classifies_unseen_style(demo: gradtoken.Model) -> None:
    scenes = [Scenes("test", objects=1, seed=11)[i] for i in range(100)]
    batch = torch.stack([demo.preprocess(scene.image) for scene in scenes])
    actual = demo(batch).argmax(-1).tolist()
    right = sum(label == scene.labels[0] for label, scene in zip(actual, scenes, strict=True))
    assert right >= FLOOR


def test_demo_card_lists_results() -> None:
    card = (ASSETS / "DEMO_MODEL.md").read_text()
    for words in ("top-1", "recall", "Twemoji", "never saw a mask", "evaluate --scenes 1000"):
        assert words in " ".join(card.split())


FLOOR = 85
"""Of 100 objects; well below what the card says, far above the 2 or 3 of chance."""
