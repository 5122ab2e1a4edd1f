"""AttnLRP against its rules written out, layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import gradtoken
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.attribution.lrp.cubing import cubing_vit
from tests.conftest import images_for, inputs, tiny_vit
from tests.oracle import Written

pytest.importorskip("lxt", reason="the lxt extra is not installed")

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


def by_hand(written: Written, label: int) -> Tensor:
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
