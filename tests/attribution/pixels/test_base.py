"""Pixel and black-box methods on every kind of model, in any precision, grad mode and thread."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.conftest import images_for, tiny_vit
from tests.models.zoo import ZOO, seeded
from tests.snapshot import Snapshot

METHODS = {
    "saliency": {},
    "input-x-gradient": {},
    "integrated-gradients": {"steps": 2},
    "smoothgrad": {"samples": 2},
    "gradient-shap": {"samples": 2},
    "occlusion": {"window": 2, "stride": 1},
    "rise": {"masks": 6},
    "vit-cx": {"distance": 0.9},
}
RANDOM = ("smoothgrad", "gradient-shap", "rise", "vit-cx")
KINDS = (
    "vit_tiny_patch16_224",
    "vit, not square",
    "vit, mean of all tokens",
    "vit, attention pool without the class token",
    "swin_tiny_patch4_window7_224",
    "ViTForImageClassification",
    "open_clip ViT",
)
"""A class token, other sides, a mean, an attention pool, windows, another library, an embedding."""
TARGETS = [lambda z: z[1], lambda z: z[3]]


@cache
def model_of(kind: str) -> Model:
    return gradtoken.wrap(seeded(ZOO[kind].build))


def maps_of(model: Model, images: Tensor, method: str, **options: object) -> Tensor:
    settings = {**METHODS[method], **options}
    return gradtoken.explain(model, images, TARGETS, method=method, **settings).tokens


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_pixel_methods_on_every_kind_of_model(kind: str, method: str) -> None:
    entry, model = ZOO[kind], model_of(kind)
    images = images_for(entry.size)
    if method == "vit-cx" and not model.anatomy.blocks:
        with pytest.raises(MethodError, match="vit-cx needs the attention between all tokens"):
            maps_of(model, images, method)
        return
    before, state = Snapshot(model.module), np.random.get_state()[1].copy()  # noqa: NPY002
    maps = maps_of(model, images, method)
    before.check(model.module)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert maps.shape == (2, 2, *entry.grid)
    assert torch.isfinite(maps).all()
    assert not maps.requires_grad
    least = 1e-3 * float(maps.abs().max())
    assert (maps[:, 0] - maps[:, 1]).abs().amax(dim=(1, 2)).gt(least).all()
    alone = maps_of(model, images[1:], method)
    torch.testing.assert_close(alone[0], maps[1], rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_pixel_methods_leave_model_unchanged(method: str, batch: Tensor) -> None:
    module = tiny_vit(drop_path_rate=0.3, proj_drop_rate=0.2).train()
    module.blocks[1].eval()
    module.head.weight.grad = torch.ones_like(module.head.weight)
    module.blocks[0].requires_grad_(False)
    model, before = gradtoken.wrap(module), Snapshot(module)
    first = maps_of(model, batch, method)
    before.check(module)
    module.eval()
    assert torch.equal(first, maps_of(model, batch, method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_pixel_methods_in_half_precision_are_near_float32(
    method: str, precision: torch.dtype, batch: Tensor
) -> None:
    module = tiny_vit().float()
    options = {"distance": 0.12} if method == "vit-cx" else {}
    exact = maps_of(gradtoken.wrap(module), batch, method, **options)
    half = maps_of(gradtoken.wrap(copy.deepcopy(module).to(precision)), batch, method, **options)
    assert exact.dtype == half.dtype == torch.float32
    for full, low in zip(exact.flatten(0, 1), half.flatten(0, 1), strict=True):
        pair = torch.stack([full.flatten(), low.flatten()])
        assert float(torch.corrcoef(pair)[0, 1]) > (0.99 if precision == torch.float16 else 0.9)


@pytest.mark.parametrize("method", METHODS)
def test_pixel_methods_in_any_grad_mode(method: str, model: Model, batch: Tensor) -> None:
    expected = maps_of(model, batch, method)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert torch.equal(maps_of(model, batch.clone(), method), expected)


@pytest.mark.parametrize("method", RANDOM)
def test_random_methods_follow_seed(method: str, model: Model, batch: Tensor) -> None:
    expected = maps_of(model, batch, method, seed=3)
    torch.rand(1)
    assert torch.equal(maps_of(model, batch, method, seed=3), expected)
    assert not torch.equal(maps_of(model, batch, method, seed=4), expected)


@pytest.mark.parametrize("method", ["smoothgrad", "gradient-shap", "rise"])
def test_random_methods_in_threads(method: str, model: Model) -> None:
    batches = [images_for((64, 64), 1) + i for i in range(8)]
    alone = [maps_of(model, images, method) for images in batches]
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda images: maps_of(model, images, method), batches * 2))
    for apart, shared in zip(alone * 2, together, strict=True):
        torch.testing.assert_close(apart, shared)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("method", "options", "at_once"),
    [
        ("integrated-gradients", {"steps": 40}, 16),
        ("smoothgrad", {"samples": 20}, 8),
        ("gradient-shap", {"samples": 40}, 16),
        ("occlusion", {"window": 1}, 32),
        ("rise", {"masks": 70}, 64),
        ("vit-cx", {"distance": 1e-6}, 64),
    ],
)
def test_pixel_methods_run_in_chunks(
    method: str, options: dict, at_once: int, batch: Tensor
) -> None:
    """Memory does not grow with the number of images that a method runs on."""
    model = gradtoken.wrap(tiny_vit(embed_dim=96))
    sizes: list[int] = []
    model.module.patch_embed.register_forward_hook(lambda _, args, out: sizes.append(len(out)))
    maps_of(model, batch, method, **options)
    assert max(sizes) == at_once


def test_require_captum_names_extra_to_install(model: Model, batch: Tensor, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(MethodError, match=r"saliency runs through captum.*gradtoken\[bench\]"):
        gradtoken.explain(model, batch, 3, method="saliency")
