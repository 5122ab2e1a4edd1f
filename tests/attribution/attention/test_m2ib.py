"""M2IB against its optimisation written out on an open_clip model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken import contrast, text
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.conftest import images_for, tiny_vit
from tests.models.zoo import ZOO, seeded
from tests.snapshot import Snapshot
from tests.targets.fixed_prompts import with_prompts

PROMPTS = ("a photo of a cat", "a dog on the grass", "nothing at all")
QUICK = {"method": "m2ib", "steps": 4, "samples": 3}


@pytest.fixture(scope="module")
def clip() -> Model:
    return gradtoken.wrap(seeded(ZOO["open_clip ViT"].build))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_for((64, 64))


def by_hand(
    visual: torch.nn.Module, image: Tensor, prompt: Tensor, *, block: int, beta: float, seed: int
) -> Tensor:
    """KL of each patch, with Adam's updates written out; four steps of three samples."""
    patches = visual.conv1(image[None]).flatten(2)[0].T
    h = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
    h = visual.ln_pre(h)[None]
    layers = visual.transformer.resblocks
    for layer in layers[: block + 1]:
        h = layer(h)
    h = h[0].detach()
    generator = torch.Generator().manual_seed(seed)
    alpha = torch.full_like(h, 5.0)
    first, second = torch.zeros_like(h), torch.zeros_like(h)
    for step in range(1, 4):
        alpha = alpha.detach().requires_grad_()
        passed = 1 / (1 + torch.exp(-alpha))
        losses = []
        for noise in torch.randn(3, *h.shape, generator=generator).double():
            tokens = (passed * h + (1 - passed) * noise)[None]
            for layer in layers[block + 1 :]:
                tokens = layer(tokens)
            embedding = visual.ln_post(tokens[0, 0]) @ visual.proj
            losses.append(-torch.cosine_similarity(embedding, prompt, dim=0))
        loss = beta * divergence(passed, h).mean() + torch.stack(losses).mean()
        (grad,) = torch.autograd.grad(loss, alpha)
        first = 0.9 * first + 0.1 * grad
        second = 0.999 * second + 0.001 * grad**2
        size = (second / (1 - 0.999**step)).sqrt() + 1e-8
        alpha = alpha - 1.0 * first / (1 - 0.9**step) / size
    return divergence(1 / (1 + torch.exp(-alpha)), h).sum(-1)[1:].detach()


def divergence(passed: Tensor, h: Tensor) -> Tensor:
    variance = (1 - passed) ** 2
    return -0.5 * (1 + torch.log(variance) - (passed * h) ** 2 - variance)


@pytest.mark.parametrize(("block", "beta", "seed"), [(0, 0.1, 0), (1, 1.0, 3), (-1, 0.1, 0)])
def test_m2ib_equals_optimisation_by_hand(
    clip: Model, images: Tensor, block: int, beta: float, seed: int
) -> None:
    options = {**QUICK, "block": block, "beta": beta, "seed": seed}
    before = Snapshot(clip.module)
    actual = gradtoken.explain(clip, images, text(*PROMPTS[:2]), **options).tokens
    before.check(clip.module)
    prompts = clip.read_text(PROMPTS).embeddings.double()
    for b, image in enumerate(images):
        for k in range(2):
            expected = by_hand(
                clip.module.visual, image, prompts[k], block=block % 3, beta=beta, seed=seed
            )
            torch.testing.assert_close(
                actual[b, k].flatten().double(), expected, rtol=1e-4, atol=1e-5
            )


def test_m2ib_of_many_prompts_equals_single_ones(clip: Model, images: Tensor) -> None:
    prompts = text(*(f"a thing of kind {index}" for index in range(30)))
    both = gradtoken.explain(clip, images, prompts, **QUICK).tokens
    for k in (0, 25, 29):
        alone = gradtoken.explain(clip, images[1:], prompts[k], **QUICK).tokens
        torch.testing.assert_close(both[1, k], alone[0, 0], rtol=1e-5, atol=1e-7)


def test_m2ib_of_contrast(clip: Model, images: Tensor) -> None:
    cat, dog, _ = text(*PROMPTS)
    both = gradtoken.explain(clip, images, [cat, contrast(cat, dog)], **QUICK).tokens
    assert float((both[:, 0] - both[:, 1]).abs().max()) > 1e-3


def test_m2ib_is_deterministic_and_draws_from_its_own_generator(
    clip: Model, images: Tensor
) -> None:
    maps = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            maps.append(gradtoken.explain(clip, images, text(*PROMPTS), **QUICK).tokens)
            assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*maps)
    other = gradtoken.explain(clip, images, text(*PROMPTS), **QUICK, seed=1).tokens
    assert not torch.equal(maps[0], other)


TEXT_MODELS = ["CLIPModel", "SiglipModel", *(name for name in ZOO if name.startswith("open_clip"))]


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_m2ib_on_models_of_the_zoo(name: str, images: Tensor) -> None:
    model = with_prompts(gradtoken.wrap(seeded(ZOO[name].build)))
    before = Snapshot(model.module)
    tokens = gradtoken.explain(model, images, text(*PROMPTS), **QUICK).tokens
    before.check(model.module)
    assert tokens.shape == (2, 3, 4, 4)
    assert float(tokens.min()) >= 0
    assert math.isfinite(float(tokens.max()))
    assert float((tokens[0, 0] - tokens[0, 1]).abs().max()) > 1e-4


def test_m2ib_in_half_precision_is_near_float64(clip: Model, images: Tensor) -> None:
    import copy

    module = copy.deepcopy(clip.module).bfloat16()
    low, exact = (with_prompts(gradtoken.wrap(m)) for m in (module, copy.deepcopy(module).double()))
    pixels = images.bfloat16()
    maps = [
        gradtoken.explain(model, x, text(*PROMPTS), **QUICK).tokens[0, 0].flatten().double()
        for model, x in ((low, pixels), (exact, pixels.double()))
    ]
    assert float(torch.corrcoef(torch.stack(maps))[0, 1]) > 0.99


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"block": 3}, r"m2ib's block is 3, but \S+ has 3 blocks"),
        ({"block": 0.5}, r"m2ib's block is 0.5; it must be a block's index"),
        ({"steps": 1}, r"m2ib's steps is 1; it must be a whole number from 2 up"),
        ({"samples": 0}, r"m2ib's samples is 0"),
        ({"beta": -1}, r"m2ib's beta is -1"),
        ({"learning_rate": "fast"}, r"m2ib's learning_rate is 'fast'"),
        ({"seed": -1}, r"m2ib's seed is -1"),
    ],
)
def test_m2ib_rejects_options(clip: Model, images: Tensor, options: dict, words: str) -> None:
    with pytest.raises(MethodError, match=words):
        gradtoken.explain(clip, images, text(*PROMPTS), method="m2ib", **options)


def test_m2ib_rejects_classes() -> None:
    model = gradtoken.wrap(tiny_vit())
    with pytest.raises(MethodError, match="m2ib explains text prompts alone, not 'class 3' of"):
        gradtoken.explain(model, images_for((64, 64)), 3, method="m2ib")
