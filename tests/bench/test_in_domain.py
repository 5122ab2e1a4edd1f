"""Fine-tuned models of a run: which ones are loaded, and which are rejected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import gradtoken
from gradtoken.bench.in_domain import load_in_domain, tuned_models
from gradtoken.bench.matching import Matcher
from gradtoken.datasets import Scenes
from gradtoken.errors import ModelError
from gradtoken.metrics.single_deletion import cells_of
from gradtoken.models import Model

ASSETS = Path(gradtoken.__file__).parent / "models" / "assets"
TIMM = "timm/test_vit"


@pytest.fixture(scope="module")
def demo() -> Model:
    return gradtoken.load("demo", device="cpu")


@pytest.fixture(scope="module")
def in_domain() -> Model:
    return gradtoken.load("demo-in-domain", device="cpu")


def test_bundled_in_domain_model_is_small_and_says_how_it_was_made() -> None:
    path = ASSETS / "demo_in_domain.safetensors"
    assert path.stat().st_size < 6_000_000
    with safe_open(str(path), "pt") as opened:
        facts = json.loads(opened.metadata()["gradtoken"])
    assert facts["fine_tuning"]["of"] == "demo"
    assert facts["fine_tuning"]["deletion"] == "cell"


def test_bundled_in_domain_model_knows_scenes_without_a_cell(demo: Model, in_domain: Model) -> None:
    """One of the 16 cells after the other, with the model before beside it."""
    scenes = [Scenes("test", objects=(1, 3), seed=5)[index] for index in range(96)]
    images = torch.stack([demo.preprocess(scene.image) for scene in scenes])
    away = cells_of(112, 112)[torch.arange(96) % 16][:, None]
    found = {}
    for name, model in (("demo", demo), ("in domain", in_domain)):
        for part, pixels in (("whole", images), ("deleted", images.masked_fill(away, 0))):
            logits = model(pixels)
            found[name, part] = sum(
                len(set(row.topk(len(scene.labels)).indices.tolist()) & set(scene.labels))
                for scene, row in zip(scenes, logits, strict=True)
            ) / sum(len(scene.labels) for scene in scenes)
    fall = {name: found[name, "whole"] - found[name, "deleted"] for name in ("demo", "in domain")}
    assert found["in domain", "whole"] > found["demo", "whole"] - 0.03
    assert fall["in domain"] < 0.05
    assert fall["in domain"] < fall["demo"]


def test_demo_has_its_own_in_domain_model(demo: Model) -> None:
    weights = {"idsds": None, "f-fidelity": None}
    tuned = tuned_models(demo, ["saco", "idsds", "f-fidelity"], weights)
    assert {group: model.spec for group, model in tuned.items()} == {"idsds": "demo-in-domain"}
    assert tuned_models(demo, ["saco"], weights) == {}
    given = {**weights, "f-fidelity": str(ASSETS / "demo.safetensors")}
    assert set(tuned_models(demo, ["idsds", "f-fidelity"], given)) == {"idsds", "f-fidelity"}


def test_weights_go_into_the_architecture_of_the_model(tmp_path: Path) -> None:
    model = gradtoken.load(TIMM, pretrained=False, device="cpu")
    state = {name: value.half() for name, value in model.module.state_dict().items()}
    state["head.bias"] = state["head.bias"] + 1
    save_file(state, tmp_path / "tuned.safetensors")
    assert tuned_models(model, ["idsds"], {"idsds": None}) == {}
    tuned = load_in_domain(model, str(tmp_path / "tuned.safetensors"))
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    assert tuned.spec == model.spec
    torch.testing.assert_close(tuned(images), model(images) + 1, atol=0.02, rtol=0)


def test_models_of_other_classes_or_preprocessing_are_rejected(demo: Model, tmp_path: Path) -> None:
    with safe_open(str(ASSETS / "demo.safetensors"), "pt") as opened:
        facts = json.loads(opened.metadata()["gradtoken"])
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    changes = {
        "has other classes": {"classes": [*facts["classes"][1:], "another"]},
        "preprocesses images in another way": {"mean": [0.4, 0.5, 0.5]},
    }
    for reason, change in changes.items():
        path = tmp_path / "other.safetensors"
        save_file(state, path, metadata={"gradtoken": json.dumps({**facts, **change})})
        with pytest.raises(ModelError, match=f"{reason} than demo; give a model that was"):
            load_in_domain(demo, str(path))


def test_in_domain_model_names_the_scenes(in_domain: Model) -> None:
    classes = Scenes().classes
    matcher = Matcher(in_domain.labels, classes)
    assert [matcher.find(name) for name in classes] == list(range(len(classes)))
