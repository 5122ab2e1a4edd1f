"""What the tap makes of the arguments of an attention call."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Attention
from torch import Tensor, nn
from torch.nn import functional as F

import gradtoken
from gradtoken.trace.record import record
from tests.conftest import tiny_vit


class Indifferent(Attention):
    """Attends to every token alike: by a scale of zero, or because its keys are zero."""

    by_scale = True

    def forward(self, x: Tensor, **_: object) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if self.by_scale:
            x = F.scaled_dot_product_attention(q, k, v, scale=0.0)
        else:
            x = F.scaled_dot_product_attention(q, 0 * k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


def indifferent(*, by_scale: bool) -> nn.Module:
    module = tiny_vit()
    for block in module.blocks:
        block.attn.__class__, block.attn.by_scale = Indifferent, by_scale
    return module


def test_attention_call_keeps_scale_of_zero(batch: Tensor) -> None:
    model = gradtoken.wrap(indifferent(by_scale=True))
    (call, *_) = record(model, batch).calls
    assert call.scale == 0
    tokens = call.key.shape[-2]
    torch.testing.assert_close(
        call.rows(slice(None)), torch.full((2, 3, tokens, tokens), 1 / tokens).double()
    )


@pytest.mark.parametrize("method", ["gradtoken", "raw-attention", "rollout", "gae", "attcat"])
def test_explain_scale_of_zero_equals_zero_keys(batch: Tensor, method: str) -> None:
    actual, expected = (
        gradtoken.explain(gradtoken.wrap(indifferent(by_scale=way)), batch, [1, 3], method=method)
        for way in (True, False)
    )
    assert expected.tokens.abs().max() > 0
    torch.testing.assert_close(actual.tokens, expected.tokens)
