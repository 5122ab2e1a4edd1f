"""GAE against its equation written out."""

from __future__ import annotations

import torch
from torch import Tensor

import gradtoken
from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.oracle import Written


def by_hand(written: Written, label: int) -> Tensor:
    blocks, grads = written.attention_gradients(label)
    relevance = torch.eye(len(blocks[0].entering), dtype=torch.float64)
    for block, grad in zip(blocks, grads, strict=True):
        positive = torch.stack(
            [(g * a).clamp_min(0) for g, a in zip(grad, block.attention, strict=True)]
        )
        relevance = relevance + positive.mean(0) @ relevance
    return relevance[0]


def test_gae_equals_equation(variant: Model) -> None:
    assert_equals(variant, "gae", by_hand)


def test_gae_equals_captum_gradient_by_attention(model: Model, batch: Tensor) -> None:
    """captum's LayerGradientXActivation of timm's unfused attention gives A * dA."""
    from captum.attr import LayerGradientXActivation

    module = model.module
    for block in module.blocks:
        block.attn.fused_attn = False
    layers = [block.attn.attn_drop for block in module.blocks]
    products = LayerGradientXActivation(module, layers).attribute(batch.requires_grad_(), target=3)
    relevance = torch.eye(65).double().expand(2, 65, 65)
    for product in products:
        relevance = relevance + product.detach().clamp_min(0).mean(1) @ relevance
    ours = gradtoken.explain(model, batch.detach(), 3, method="gae").tokens[:, 0].flatten(1)
    torch.testing.assert_close(ours, relevance[:, 0, 1:].float())
