"""A text model as a classifier, against its similarities and its maps of prompts."""

from __future__ import annotations

import pytest
import torch

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.models.zero_shot import zero_shot
from gradtoken.targets import text
from tests.conftest import tiny_vit

NAMES = ("cat", "traffic light", "dog")
PROMPTS = tuple(f"a drawing of a {name}" for name in NAMES)


@pytest.fixture(scope="module")
def clip() -> gradtoken.Model:
    return gradtoken.load("open_clip/ViT-S-32", pretrained=False, device="cpu")


@pytest.fixture(scope="module")
def classifier(clip: gradtoken.Model) -> gradtoken.Model:
    return zero_shot(clip, NAMES, "a drawing of a {}")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def test_zero_shot_logits(
    clip: gradtoken.Model, classifier: gradtoken.Model, images: torch.Tensor
) -> None:
    import open_clip

    with torch.no_grad():
        tokens = open_clip.get_tokenizer("ViT-S-32")(list(PROMPTS))
        expected = clip.module.get_logits(images, tokens)[0]
    torch.testing.assert_close(classifier(images), expected, atol=1e-4, rtol=1e-4)
    assert list(classifier.labels) == list(NAMES)
    assert classifier.activation == "softmax"
    assert clip.prompts is not None


@pytest.mark.parametrize("method", ["gradtoken", "grad-cam", "cdam"])
def test_zero_shot_maps_are_those_of_prompts(
    clip: gradtoken.Model, classifier: gradtoken.Model, images: torch.Tensor, method: str
) -> None:
    options = {"rivals": 0} if method == "gradtoken" else {}
    ours = gradtoken.explain(classifier, images, ["dog", 0], method=method, **options)
    theirs = gradtoken.explain(clip, images, text(*PROMPTS), method=method, **options)
    for k, i in ((0, 2), (1, 0)):
        a, b = ours.tokens[:, k].flatten(1), theirs.tokens[:, i].flatten(1)
        scale = float((a * b).sum() / (b * b).sum())
        torch.testing.assert_close(a, b * scale, atol=1e-3 * float(a.abs().max()), rtol=1e-3)


def test_zero_shot_errors(clip: gradtoken.Model) -> None:
    with pytest.raises(ModelError, match="has classes and reads no text"):
        zero_shot(gradtoken.wrap(tiny_vit()), NAMES)
    with pytest.raises(ModelError, match=r"has no place for a name; write \{\}"):
        zero_shot(clip, NAMES, "a photo")
    with pytest.raises(ModelError, match="needs the names of classes"):
        zero_shot(clip, [])
