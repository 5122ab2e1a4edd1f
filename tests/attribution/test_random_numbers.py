"""Methods that draw random numbers do not depend on global generators or the default type."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import methods
from gradtoken.metrics import cascading_randomisation
from gradtoken.models import Model
from tests.conftest import tiny_vit

RANDOM = {
    "random": {},
    "rise": {"masks": 20},
    "vit-cx": {},
    "smoothgrad": {"samples": 9},
    "gradient-shap": {"samples": 18},
    "cdam": {"gradient": "smooth", "steps": 3},
}
OF_CLASSES = sorted(name for name, kind in methods().items() if not kind.of_prompts)


@contextmanager
def default_dtype(kind: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def states() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002


def maps_of(model: Model, batch: Tensor, method: str, **options: object) -> Tensor:
    return gradtoken.explain(model, batch, [3, 7], method=method, **options).tokens


@pytest.fixture
def global_generators() -> Iterator[None]:
    with torch.random.fork_rng():
        kept = np.random.get_state()  # noqa: NPY002
        yield
        np.random.set_state(kept)  # noqa: NPY002


def test_random_methods_are_all_with_seed() -> None:
    seeded = {n for n, kind in methods().items() if "seed" in vars(kind())}
    assert seeded.intersection(OF_CLASSES) == set(RANDOM)


@pytest.mark.parametrize("method", OF_CLASSES)
def test_map_does_not_change_with_default_dtype(method: str, batch: Tensor) -> None:
    model = gradtoken.wrap(tiny_vit().float())
    maps = []
    for kind in (torch.float32, torch.float64):
        with default_dtype(kind):
            maps.append(maps_of(model, batch.float(), method, **RANDOM.get(method, {})))
            assert torch.get_default_dtype() == kind
    if method in RANDOM:
        assert torch.equal(*maps)
    torch.testing.assert_close(*maps, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("global_generators")
@pytest.mark.parametrize("method", RANDOM)
def test_random_methods_ignore_global_generators(method: str, model: Model, batch: Tensor) -> None:
    maps = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = states()
        maps.append(maps_of(model, batch, method, **RANDOM[method]))
        assert states() == before
    assert torch.equal(*maps)
    other = maps_of(model, batch, method, **{**RANDOM[method], "seed": 1})
    assert not torch.equal(maps[0], other)


@pytest.mark.usefixtures("global_generators")
def test_random_methods_ignore_draws_of_other_code(
    model: Model, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another thread would between two steps of a method."""
    alone = {m: maps_of(model, batch, m, **RANDOM[m]) for m in RANDOM}

    def draw(*_: object) -> None:
        torch.rand(7)
        np.random.rand(3)  # noqa: NPY002

    model.module.patch_embed.register_forward_hook(draw)
    for method, expected in alone.items():
        assert torch.equal(maps_of(model, batch, method, **RANDOM[method]), expected)


def test_smoothgrad_and_gradient_shap_equal_captum(model: Model, batch: Tensor) -> None:
    """captum's own sampling from the global generators, in float32, is what the seeds stand for."""
    from captum.attr import GradientShap, NoiseTunnel, Saliency

    from gradtoken.images.fills import filled

    image = batch[:1]

    def score(images: Tensor) -> Tensor:
        return model.module(images)[:, 3]

    with torch.random.fork_rng():
        kept = np.random.get_state()  # noqa: NPY002
        torch.manual_seed(4)
        np.random.seed(4)  # noqa: NPY002
        spread = float(image.max() - image.min()) * 0.15
        smooth = NoiseTunnel(Saliency(score)).attribute(
            image.clone().requires_grad_(), "smoothgrad", 8, 8, spread, abs=True
        )
        torch.manual_seed(4)
        np.random.seed(4)  # noqa: NPY002
        about = model.preprocess
        starts = [
            filled(image, f, about.mean, about.std) for f in ("black", "grey", "mean", "blur")
        ]
        shap = GradientShap(score).attribute(image, torch.cat(starts), n_samples=16, stdevs=0.05)
        np.random.set_state(kept)  # noqa: NPY002
    pooled = torch.nn.functional.avg_pool2d
    expected = pooled(smooth.amax(1), 8), pooled(shap.sum(1), 8) * 64
    maps = [
        maps_of(model, image, name, samples=samples, seed=4)[:, 0]
        for name, samples in (("smoothgrad", 8), ("gradient-shap", 16))
    ]
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs.float())


def test_load_random_weights_do_not_change_with_default_dtype() -> None:
    made = []
    for kind in (torch.float32, torch.float64):
        with default_dtype(kind):
            made.append(gradtoken.load("timm/vit_tiny_patch16_224", pretrained=False).module)
            assert torch.get_default_dtype() == kind
    pairs = zip(made[0].parameters(), made[1].parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


def test_cascading_randomisation_does_not_change_with_default_dtype(batch: Tensor) -> None:
    model = gradtoken.wrap(tiny_vit().float())
    correlations = []
    for kind in (torch.float32, torch.float64):
        with default_dtype(kind):
            stages = cascading_randomisation(
                model, batch.float(), lambda m, x: maps_of(m, x, "gae")[:, 0].flatten(1)
            )
        correlations.append(torch.stack([stage.correlation for stage in stages]))
    assert torch.equal(*correlations)
