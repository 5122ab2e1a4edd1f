"""Forwards in a wider type than the module's own, and the methods that need them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import gradtoken
from gradtoken.attribution.widened import widened_if_narrow, widening
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.conftest import tiny_vit

METHODS = sorted(
    n for n, kind in gradtoken.methods().items() if not kind.of_prompts and n != "random"
)
"""The random map is seeded by the input's values, and so by their rounding too."""
OPTIONS = {
    "gradient-shap": {"samples": 3},
    "iia": {"steps": 2},
    "integrated-gradients": {"steps": 3},
    "rise": {"masks": 16},
    "smoothgrad": {"samples": 3},
    "vit-cx": {"distance": 0.1},
}
LAYERWISE = ("attnlrp", "partial-lrp", "transformer-attribution")
HALF = (torch.bfloat16, torch.float16)


def images() -> Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def in_type(dtype: torch.dtype) -> tuple[Model, Model]:
    """A model in half precision, and one in float64 with the same rounded weights."""
    module = tiny_vit().to(dtype)
    return gradtoken.wrap(module), gradtoken.wrap(copy.deepcopy(module).double())


def maps(model: Model, method: str, pixels: Tensor) -> Tensor:
    options = {"target": "logit"} if method == "gradtoken" else OPTIONS.get(method, {})
    return gradtoken.explain(model, pixels, [1, 4], method=method, **options).tokens[0].double()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("method", METHODS)
def test_methods_in_half_precision_are_near_float64(method: str, dtype: torch.dtype) -> None:
    low, exact = in_type(dtype)
    pixels = images().to(dtype)
    for ours, expected in zip(
        maps(low, method, pixels), maps(exact, method, pixels.double()), strict=True
    ):
        alike = torch.corrcoef(torch.stack([ours.flatten(), expected.flatten()]))[0, 1]
        assert float(alike) > (0.9999999 if method in LAYERWISE else 0.99)


@pytest.mark.parametrize("method", METHODS)
def test_methods_under_autocast_are_near_float64(method: str) -> None:
    module = tiny_vit().float()
    low, exact = gradtoken.wrap(module), gradtoken.wrap(copy.deepcopy(module).double())
    with torch.autocast("cpu", torch.bfloat16):
        narrow = maps(low, method, images())
    for ours, expected in zip(narrow, maps(exact, method, images().double()), strict=True):
        alike = torch.corrcoef(torch.stack([ours.flatten(), expected.flatten()]))[0, 1]
        assert float(alike) > (0.9999999 if method in LAYERWISE else 0.99)


def test_widening_computes_in_wide_type_and_leaves_module_unchanged() -> None:
    low, exact = in_type(torch.bfloat16)
    pixels = images().bfloat16()
    before = {name: value.clone() for name, value in low.module.state_dict().items()}
    with widening(low, torch.float64) as mode, mode, torch.no_grad():
        logits = low.run(pixels.double())
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits, exact(pixels.double()), rtol=1e-12, atol=1e-12)
    for name, value in low.module.state_dict().items():
        assert value.dtype == torch.bfloat16
        assert torch.equal(value, before[name])


def test_widened_if_narrow_passes_gradients_to_pixels() -> None:
    low, exact = in_type(torch.float16)
    pixels = images().half().float().requires_grad_()
    with widened_if_narrow(low):
        score = low.run(pixels)[0, 2]
    (grad,) = torch.autograd.grad(score, pixels)
    wide = pixels.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(exact.module(wide)[0, 2], wide)
    torch.testing.assert_close(grad.double(), expected, rtol=1e-3, atol=1e-5)


def test_widened_replaces_types_named_in_model() -> None:
    class Narrowing(type(tiny_vit())):
        def forward_features(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
            return super().forward_features(x, *args, **kwargs).to(torch.bfloat16).bfloat16()

        def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
            return super().forward_head(x.to(self.head.weight.dtype), pre_logits)

    plain = tiny_vit()
    narrow = copy.deepcopy(plain)
    narrow.__class__ = Narrowing
    tokens, expected = (
        gradtoken.explain(
            gradtoken.wrap(module), images().double(), 3, method="transformer-attribution"
        ).tokens
        for module in (narrow, plain)
    )
    torch.testing.assert_close(tokens, expected)


def test_widened_rejects_write_into_tensor_of_model() -> None:
    class Writing(nn.Module):
        def __init__(self, vit: nn.Module) -> None:
            super().__init__()
            self.vit = vit
            self.register_buffer("last", torch.zeros(1, dtype=torch.bfloat16))

        def forward(self, x: Tensor) -> Tensor:
            made = self.vit(x)
            self.last.add_(made.detach().sum())
            return made

    module = Writing(tiny_vit().bfloat16())
    model = gradtoken.wrap(module, preprocess=gradtoken.wrap(tiny_vit()).preprocess.transform)
    with pytest.raises(MethodError, match=r"attnlrp computes in float64, but .* writes into a ten"):
        gradtoken.explain(model, images().bfloat16(), 3, method="attnlrp")


def test_widening_names_device_without_type(monkeypatch: pytest.MonkeyPatch) -> None:
    model = gradtoken.wrap(tiny_vit().float())
    zeros = torch.zeros

    def without_float64(*size: object, dtype: torch.dtype | None = None, **rest: object) -> Tensor:
        if dtype == torch.float64:
            raise TypeError("float64 is not supported here")
        return zeros(*size, dtype=dtype, **rest)

    monkeypatch.setattr(torch, "zeros", without_float64)
    with (
        pytest.raises(MethodError, match="float64, which the device cpu does not have"),
        widening(model, torch.float64),
    ):
        pass
