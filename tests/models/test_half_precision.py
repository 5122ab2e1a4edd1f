"""Half precision, autocast, wrapped, compiled and opaque modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gradtoken
from gradtoken.datasets import Scenes
from gradtoken.errors import ModelError
from tests.conftest import tiny_vit
from tests.snapshot import Snapshot

AGREE = 0.99
WORST = 0.95


@pytest.fixture(scope="module")
def scenes() -> list:
    drawn = Scenes("test", 112, (2, 3), seed=11)
    return [drawn[index] for index in range(6)]


def maps(model: gradtoken.Model, scenes: list) -> Tensor:
    """Token maps of two present classes in every scene, (scenes · 2, N)."""
    pictures = [scene.image for scene in scenes]
    targets = [list(scene.labels[:2]) for scene in scenes]
    return gradtoken.explain(model, pictures, targets).tokens.flatten(0, 1).flatten(1)


def check_agreement(one: Tensor, other: Tensor) -> None:
    """Mean rank correlation of the maps, and that of the worst, whose background is near zero."""
    ranks = [t.argsort(-1).argsort(-1).double() for t in (one, other)]
    found = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*ranks, strict=True)]
    assert float(torch.stack(found).mean()) > AGREE
    assert float(min(found)) > WORST


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_explain_half_precision_agrees_on_demo(dtype: str, scenes: list) -> None:
    exact = maps(gradtoken.load("demo", device="cpu"), scenes)
    half = maps(gradtoken.load("demo", device="cpu", dtype=dtype), scenes)
    check_agreement(exact, half)
    assert half.dtype == torch.float32


def test_explain_under_autocast_agrees_on_demo(scenes: list) -> None:
    model = gradtoken.load("demo", device="cpu")
    exact = maps(model, scenes)
    with torch.autocast("cpu", torch.bfloat16):
        found = maps(model, scenes)
    check_agreement(exact, found)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_explain_on_gpu_agrees_on_demo(dtype: str, scenes: list) -> None:
    exact = maps(gradtoken.load("demo", device="cpu"), scenes)
    found = maps(gradtoken.load("demo", device="cuda", dtype=dtype), scenes)
    check_agreement(exact, found.cpu())


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs an MPS device")
def test_explain_on_mps_agrees_on_demo(scenes: list) -> None:
    exact = maps(gradtoken.load("demo", device="cpu"), scenes)
    found = maps(gradtoken.load("demo", device="mps"), scenes)
    check_agreement(exact, found.cpu())


def test_wrap_unwraps_compiled_and_data_parallel(batch: Tensor) -> None:
    module = tiny_vit()
    expected = gradtoken.explain(gradtoken.wrap(module), batch, [1, 2]).tokens
    wrapped = {
        "compiled": torch.compile(module),
        "data parallel": nn.DataParallel(module),
        "both": nn.DataParallel(torch.compile(module)),
    }
    for name, outer in wrapped.items():
        model = gradtoken.wrap(outer)
        assert model.module is module, name
        assert torch.equal(gradtoken.explain(model, batch, [1, 2]).tokens, expected)


@pytest.mark.parametrize("what", ["module", "blocks"])
def test_explain_module_compiled_in_place(batch: Tensor, what: str) -> None:
    module = tiny_vit()
    expected = gradtoken.explain(gradtoken.wrap(module), batch, [1, 2]).tokens
    for part in [module] if what == "module" else module.blocks:
        part.compile()
    before = Snapshot(module)
    found = gradtoken.explain(gradtoken.wrap(module), batch, [1, 2]).tokens
    assert torch.equal(found, expected)
    before.check(module)
    assert all(
        part._compiled_call_impl is not None
        for part in ([module] if what == "module" else module.blocks)
    )


def test_wrap_rejects_quantised_module() -> None:
    module = tiny_vit().float()
    module.blocks[1].mlp.fc1.weight = nn.Parameter(
        torch.zeros(192, 48, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(ModelError, match=r"quantised \(it has integer weights\)"):
        gradtoken.wrap(module)
    layer = type("Linear4bit", (nn.Linear,), {"__module__": "bitsandbytes.nn.modules"})
    module = tiny_vit()
    module.head = layer(48, 10)
    with pytest.raises(ModelError, match=r"quantised \(Linear4bit\).*before quantisation"):
        gradtoken.wrap(module)


def test_wrap_rejects_traced_module() -> None:
    module = tiny_vit().float()
    traced = torch.jit.trace(module, torch.zeros(1, 3, 64, 64))
    with pytest.raises(ModelError, match="scripted module, which hides its attention"):
        gradtoken.wrap(traced)
