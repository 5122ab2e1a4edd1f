"""AttnLRP against its rules written out, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.attribution.lrp.gamma import gamma_linear
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.attribution.lrp.cubing import cubing_vit
from tests.conftest import images_for, inputs, tiny_vit
from tests.oracle import Written

pytest.importorskip("lxt", reason="the lxt extra is not installed")

Rule: TypeAlias = Callable[[Tensor, Tensor, torch.nn.Linear], Tensor]

EPSILON = {"linear": 1e-6, "product": 1e-8, "sum": 1e-8}


def linear(relevance: Tensor, x: Tensor, layer: torch.nn.Linear) -> Tensor:
    """R_j = sum_i x_j w_ij / (z_i + eps) R_i, z with its bias."""
    contributions = x[:, None, :] * layer.weight[None]
    return ((relevance / (layer(x) + EPSILON["linear"]))[..., None] * contributions).sum(1)


def added(relevance: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    share = relevance / (a + b + EPSILON["sum"])
    return a * share, b * share


def product(relevance: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Half to each factor, by what each product contributes: (n, k) @ (k, m), term by term."""
    terms = a[:, :, None] * b[None]
    shares = (relevance / (2 * (a @ b) + EPSILON["product"]))[:, None, :] * terms
    return shares.sum(2), shares.sum(0)


def softmax(relevance: Tensor, x: Tensor) -> Tensor:
    return x * (relevance - x.softmax(-1) * relevance.sum(-1, keepdim=True))


def gamma_rule(gamma: float) -> Rule:
    """The gamma rule, one output and one input at a time."""

    def linear_gamma(relevance: Tensor, x: Tensor, layer: torch.nn.Linear) -> Tensor:
        bias = layer.bias.detach()
        contributions = x[:, None, :] * layer.weight[None]
        z = contributions.sum(-1) + bias
        shares = torch.zeros_like(contributions)
        for sign in (1, -1):
            own, own_bias = (
                part + gamma * sign * (sign * part).clamp_min(0) for part in (contributions, bias)
            )
            total = own.sum(-1) + own_bias + sign * EPSILON["linear"]
            shares += torch.where((sign * z > 0)[..., None], own / total[..., None], 0)
        return (relevance[..., None] * shares).sum(1)

    return linear_gamma


def by_hand(written: Written, label: int, linear: Rule = linear) -> Tensor:
    module = written.module
    blocks, logits = written.forward()
    logits = logits.flatten()
    last = module.norm(blocks[-1].leaving)
    relevance = torch.zeros_like(blocks[-1].leaving)
    seed = torch.zeros_like(logits)[None]
    seed[0, label] = logits[label]
    relevance[:1] = linear(seed, last[:1], module.head)
    for block, layer in zip(reversed(blocks), reversed(module.blocks), strict=True):
        normed = layer.norm2(block.middle)
        relevance, into = added(relevance, block.middle, block.leaving - block.middle)
        into = linear(into, F.gelu(layer.mlp.fc1(normed)), layer.mlp.fc2)
        relevance = relevance + linear(into, normed, layer.mlp.fc1)
        joined = block.output.transpose(0, 1).flatten(1)
        relevance, into = added(relevance, block.entering, block.middle - block.entering)
        heads = linear(into, joined, layer.attn.proj)
        heads = heads.unflatten(1, block.output.shape[::2]).transpose(0, 1)
        q, k, v = written.heads(layer, block.normed)
        parts = []
        for head, share in enumerate(heads):
            matrix, values = product(share, block.attention[head], v[head])
            matrix = softmax(matrix, block.scores[head])
            queries, keys = product(matrix, q[head], k[head].T)
            parts.append((queries, keys.T, values))
        mixed = torch.cat(
            [torch.stack(column, dim=1).flatten(1) for column in zip(*parts, strict=True)], dim=1
        )
        relevance = relevance + linear(mixed, block.normed, layer.attn.qkv)
    return relevance.sum(-1)


def test_attnlrp_equals_rules(model: Model) -> None:
    assert_equals(model, "attnlrp", by_hand)


@pytest.mark.parametrize("gamma", [0.05, 1.0])
def test_attnlrp_with_gamma_equals_rules(model: Model, gamma: float) -> None:
    rule = gamma_rule(gamma)
    assert_equals(
        model, "attnlrp", lambda written, label: by_hand(written, label, rule), gamma=gamma
    )


@pytest.mark.parametrize("bias", [True, False])
def test_gamma_rule_equals_zennit(bias: bool) -> None:
    from zennit.rules import Gamma

    layer = torch.nn.Linear(7, 5, bias=bias).double()
    values = iter(torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).double())
    with torch.no_grad():
        layer.weight.copy_(torch.stack([next(values) for _ in range(5)]))
        if bias:
            layer.bias.copy_(next(values)[:5])
    x = torch.stack([next(values) for _ in range(4)]).requires_grad_()
    relevance = torch.stack([next(values)[:5] for _ in range(4)])
    actual = gamma_linear(x, layer.weight.detach(), layer.bias if bias else None, 0.3)
    (ours,) = torch.autograd.grad(actual, x, relevance)
    handles = Gamma(0.3).register(layer)
    (theirs,) = torch.autograd.grad(layer(x), x, relevance)
    handles.remove()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("value", [-0.1, float("inf"), "big", True])
def test_attnlrp_rejects_gamma(value: object) -> None:
    with pytest.raises(MethodError, match=r"attnlrp's gamma is .*; it must be a number from 0 up"):
        make_method("attnlrp", gamma=value)


def test_attnlrp_with_gamma_in_a_batch(model: Model) -> None:
    images = inputs(model)
    options = {"method": "attnlrp", "gamma": 0.1}
    both = gradtoken.explain(model, images, [3, 7], **options).tokens
    alone = gradtoken.explain(model, images[1:], 7, **options).tokens
    torch.testing.assert_close(both[1, 1], alone[0, 0], rtol=1e-6, atol=1e-9)
    plain = gradtoken.explain(model, images, [3, 7], method="attnlrp").tokens
    assert not torch.allclose(both, plain, rtol=1e-2)


def test_attnlrp_names_operation_without_rule() -> None:
    model = gradtoken.wrap(cubing_vit())
    with pytest.raises(MethodError, match="attnlrp has no rule for pow, which VisionTransformer"):
        gradtoken.explain(model, images_for((64, 64)), 3, method="attnlrp")


def test_attnlrp_rejects_model_without_class_token() -> None:
    model = gradtoken.wrap(tiny_vit(global_pool="avg", class_token=False))
    with pytest.raises(MethodError, match=r"attnlrp propagates relevance from a class token"):
        gradtoken.explain(model, images_for((64, 64)), 3, method="attnlrp")


def test_attnlrp_names_package_to_install(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lxt.explicit.functional", None)
    with pytest.raises(MethodError, match=r'pip install "gradtoken\[lxt\]"'):
        gradtoken.explain(model, inputs(model), 3, method="attnlrp")
