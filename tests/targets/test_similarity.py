"""Similarity with text prompts as a target."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import gradtoken
from gradtoken.errors import TargetError
from gradtoken.models import Model
from gradtoken.targets import text
from tests.models.zoo import ZOO, seeded

PROMPTS = ("a photo of a cat", "a dog on the grass", "nothing at all")


@pytest.fixture(scope="module")
def clip() -> Model:
    return gradtoken.wrap(seeded(ZOO["open_clip ViT"].build))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5)).double()


def test_similarity_equals_model(clip: Model, images: Tensor) -> None:
    from open_clip import SimpleTokenizer

    explanation = gradtoken.explain(clip, images, text(*PROMPTS))
    tokens = SimpleTokenizer(context_length=77)(list(PROMPTS))
    with torch.no_grad():
        pictures = clip.module.encode_image(images, normalize=True)
        prompts = clip.module.encode_text(tokens, normalize=True)
        expected = pictures @ prompts.T
        shares = (expected * clip.module.logit_scale.exp()).softmax(-1)
    torch.testing.assert_close(explanation.scores, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(explanation.probabilities, shares, rtol=1e-4, atol=1e-6)
    assert explanation.labels == [list(PROMPTS)] * 2


def test_explain_similarity_equals_function(clip: Model, images: Tensor) -> None:
    explanation = gradtoken.explain(clip, images, text(*PROMPTS)).tokens
    assert explanation.shape == (2, 3, 4, 4)
    prompt = clip.read_text(PROMPTS).embeddings[1].double()
    by_function = gradtoken.explain(clip, images, lambda z: F.normalize(z, dim=-1) @ prompt)
    torch.testing.assert_close(explanation[:, 1:2], by_function.tokens, rtol=1e-4, atol=1e-8)


def test_similarity_contrast(clip: Model, images: Tensor) -> None:
    cat, dog, _ = text(*PROMPTS)
    explanation = gradtoken.explain(clip, images, [cat, dog, gradtoken.contrast(cat, dog)])
    torch.testing.assert_close(
        explanation.scores[:, 2], explanation.scores[:, 0] - explanation.scores[:, 1]
    )
    signed = gradtoken.explain(clip, images, [cat, dog], rectify=None).tokens
    apart = signed[:, 0] - signed[:, 1]
    torch.testing.assert_close(explanation.tokens[:, 2], apart, rtol=1e-4, atol=1e-8)
    assert explanation.labels[0][2] == f"{PROMPTS[0]} vs {PROMPTS[1]}"
    assert explanation.targets.rows[0][2].to_dict() == {
        "kind": "text_contrast",
        "a": PROMPTS[0],
        "b": PROMPTS[1],
    }
    assert explanation.probabilities[:, 2].isnan().all()
    with pytest.raises(TargetError, match="explained by itself"):
        gradtoken.explain(clip, images, gradtoken.log_prob(cat))
    with pytest.raises(TargetError, match="'cat' is no target of a model that compares"):
        gradtoken.explain(clip, images, gradtoken.contrast(cat, "cat"))


def test_prompt_repr_in_errors(clip: Model, model: Model, images: Tensor) -> None:
    cat, dog = text("a cat", "a dog")
    assert (repr(cat), repr(gradtoken.contrast(cat, dog))) == (
        "text('a cat')",
        "contrast(text('a cat'), text('a dog'))",
    )
    assert repr(gradtoken.log_prob(3)) == "log_prob(3)"
    apart = gradtoken.contrast(text("a cat"), text("a dog"))
    explanation = gradtoken.explain(clip, images, [gradtoken.contrast(cat, dog), apart])
    assert explanation.labels[0] == ["a cat vs a dog"] * 2
    torch.testing.assert_close(explanation.tokens[:, 0], explanation.tokens[:, 1])
    for wrong, words in [
        (gradtoken.contrast("a cat", "a dog"), 'targets=contrast(*text("a cat", "a dog")).'),
        (gradtoken.log_prob("a cat"), "log_prob('a cat') is no target of a model"),
    ]:
        with pytest.raises(TargetError) as caught:
            gradtoken.explain(clip, images, wrong)
        assert words in str(caught.value)
        assert "object at 0x" not in str(caught.value)
    with pytest.raises(TargetError, match=r"each side of contrast.*it got 2 in a list"):
        gradtoken.contrast(text("a", "b"), cat)
    with pytest.raises(TargetError, match="this one has classes"):
        gradtoken.explain(model, images, gradtoken.contrast(cat, dog))


def test_explain_runs_one_image_forward_for_all_prompts(clip: Model, images: Tensor) -> None:
    calls: list[int] = []
    handle = clip.module.visual.conv1.register_forward_hook(lambda *_: calls.append(1))
    gradtoken.explain(clip, images, text(*PROMPTS))
    handle.remove()
    assert len(calls) == 1


def test_explain_with_prompts_per_image(clip: Model, images: Tensor) -> None:
    rows = [text("a cat", "a dog"), text("a car", "a bus")]
    explanation = gradtoken.explain(clip, images, rows)
    assert explanation.labels == [["a cat", "a dog"], ["a car", "a bus"]]
    apart = [gradtoken.explain(clip, i[None], r).tokens for i, r in zip(images, rows, strict=True)]
    torch.testing.assert_close(explanation.tokens, torch.cat(apart), rtol=1e-5, atol=1e-9)


def test_similarity_probability_of_independent_prompts(images: Tensor) -> None:
    module = seeded(ZOO["SiglipModel"].build)
    model = gradtoken.wrap(module)
    prompts = F.normalize(torch.randn(2, 32, dtype=torch.float64), dim=-1)
    scale, bias = float(module.logit_scale.exp()), float(module.logit_bias)

    class Fixed:
        def __call__(self, texts: object) -> object:
            from gradtoken.targets.prompts import PromptBatch

            return PromptBatch(prompts, scale, bias, independent=True)

    object.__setattr__(model, "prompts", Fixed())
    explanation = gradtoken.explain(model, images, text("one", "two"))
    with torch.no_grad():
        pictures = F.normalize(model.anatomy.forward(module, images), dim=-1)
        expected = (pictures @ prompts.T * scale + bias).sigmoid()
    torch.testing.assert_close(explanation.probabilities.double(), expected, rtol=1e-4, atol=1e-6)


def test_explain_rejects_wrong_targets(clip: Model, model: Model, images: Tensor) -> None:
    with pytest.raises(TargetError, match=r"compares images with text.*targets=text\("):
        gradtoken.explain(clip, images)
    with pytest.raises(TargetError, match=r"'a cat' is no target.*targets=text\(\"a cat\"\)"):
        gradtoken.explain(clip, images, "a cat")
    with pytest.raises(TargetError, match="this one has classes"):
        gradtoken.explain(model, images, text("a cat"))
    for wrong in ((), ("",), (3,)):
        with pytest.raises(TargetError, match="needs prompts"):
            text(*wrong)
