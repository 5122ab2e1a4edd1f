"""CLIP Surgery against its equation written out on an open_clip model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import gradtoken
from gradtoken import contrast, text
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.conftest import images_for, tiny_vit
from tests.models.zoo import ZOO, seeded
from tests.snapshot import Snapshot
from tests.targets.fixed_prompts import with_prompts

PROMPTS = ("a photo of a cat", "a dog on the grass", "nothing at all")


@pytest.fixture(scope="module")
def clip() -> Model:
    return gradtoken.wrap(seeded(ZOO["open_clip ViT"].build))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_for((64, 64))


def embedded_patches(visual: torch.nn.Module, image: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Unit embeddings (N, C) of the patches on the second path, and (C,) of the image."""
    patches = visual.conv1(image[None]).flatten(2)[0].T
    tokens = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
    tokens = visual.ln_pre(tokens)
    layers = visual.transformer.resblocks
    path = None
    for index, layer in enumerate(layers):
        attn = layer.attn
        if index == len(layers) - blocks:
            path = tokens
        mixed = F.linear(layer.ln_1(tokens), attn.in_proj_weight, attn.in_proj_bias)
        q, k, v = (
            part.unflatten(-1, (attn.num_heads, -1)).transpose(0, 1) for part in mixed.chunk(3, -1)
        )
        added = []
        for left, right in ((q, k), (v, v)):
            heads = [
                (left[h] @ right[h].T / math.sqrt(v.shape[-1])).softmax(-1) @ v[h]
                for h in range(attn.num_heads)
            ]
            added.append(attn.out_proj(torch.cat(heads, dim=-1)))
        if path is not None:
            path = path + added[1]
        tokens = tokens + added[0]
        tokens = tokens + layer.mlp(layer.ln_2(tokens))
    read = [visual.ln_post(part) @ visual.proj for part in (path[1:], tokens[0])]
    return F.normalize(read[0], dim=-1), F.normalize(read[1], dim=-1)


@pytest.mark.parametrize("blocks", [1, 2])
def test_clip_surgery_equals_equation(clip: Model, images: Tensor, blocks: int) -> None:
    options = {"method": "clip-surgery", "blocks": blocks}
    before = Snapshot(clip.module)
    actual = gradtoken.explain(clip, images, text(*PROMPTS), **options).tokens
    before.check(clip.module)
    t = clip.read_text(PROMPTS).embeddings.double()
    for b, image in enumerate(images):
        with torch.no_grad():
            patches, whole = embedded_patches(clip.module.visual, image, blocks)
        weights = (2 * whole @ t.T).softmax(-1)
        weights = weights / weights.mean()
        features = patches[:, None] * t * weights[:, None]
        expected = (features - features.mean(1, keepdim=True)).sum(-1).T
        torch.testing.assert_close(
            actual[b].flatten(1).double(), expected, rtol=1e-4, atol=1e-6 * float(expected.max())
        )


def test_clip_surgery_of_a_single_prompt(clip: Model, images: Tensor) -> None:
    actual = gradtoken.explain(clip, images[:1], text(PROMPTS[0]), method="clip-surgery").tokens
    t = clip.read_text(PROMPTS[:1]).embeddings[0] - clip.read_text(("",)).embeddings[0]
    with torch.no_grad():
        patches, _ = embedded_patches(clip.module.visual, images[0], 3)
    expected = (patches @ t.double()).detach()
    torch.testing.assert_close(actual.flatten().double(), expected, rtol=1e-4, atol=1e-6)


def test_clip_surgery_without_feature_surgery(clip: Model, images: Tensor) -> None:
    options = {"method": "clip-surgery", "redundant": False}
    actual = gradtoken.explain(clip, images[:1], text(*PROMPTS), **options).tokens
    with torch.no_grad():
        patches, _ = embedded_patches(clip.module.visual, images[0], 3)
        expected = (patches @ clip.read_text(PROMPTS).embeddings.double().T).T
    torch.testing.assert_close(actual[0].flatten(1).double(), expected, rtol=1e-4, atol=1e-6)


def test_clip_surgery_of_contrasts_and_batches(clip: Model, images: Tensor) -> None:
    cat, dog, _ = text(*PROMPTS)
    options = {"method": "clip-surgery"}
    both = gradtoken.explain(clip, images, [cat, dog, contrast(cat, dog)], **options).tokens
    torch.testing.assert_close(both[:, 2], both[:, 0] - both[:, 1], rtol=1e-4, atol=1e-7)
    alone = gradtoken.explain(clip, images[1:], dog, **options).tokens
    torch.testing.assert_close(both[1, 1], alone[0, 0], rtol=1e-5, atol=1e-8)


TEXT_MODELS = ["CLIPModel", "SiglipModel", *(name for name in ZOO if name.startswith("open_clip"))]
WORKS = ["CLIPModel", "open_clip ViT", "open_clip timm, class token"]


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_clip_surgery_on_models_of_the_zoo(name: str, images: Tensor) -> None:
    model = with_prompts(gradtoken.wrap(seeded(ZOO[name].build)))
    before = Snapshot(model.module)
    if name not in WORKS:
        with pytest.raises(MethodError, match="clip-surgery reads patches as the class token"):
            gradtoken.explain(model, images, text(*PROMPTS), method="clip-surgery")
    else:
        tokens = gradtoken.explain(model, images, text(*PROMPTS), method="clip-surgery").tokens
        torch.testing.assert_close(tokens.sum(1), torch.zeros(2, 4, 4), atol=1e-5, rtol=0)
        assert float(tokens.abs().max()) > 1e-3
    before.check(model.module)


def test_clip_surgery_rejects_classes_and_options(images: Tensor) -> None:
    model = gradtoken.wrap(tiny_vit())
    with pytest.raises(MethodError, match="clip-surgery explains text prompts alone, not 'class 3"):
        gradtoken.explain(model, images, 3, method="clip-surgery")
    for options in ({"blocks": 0}, {"redundant": "no"}):
        with pytest.raises(MethodError, match="clip-surgery's"):
            gradtoken.explain(model, images, 3, method="clip-surgery", **options)
