"""The stream of the readout tokens against the model itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.models import Model
from gradtoken.tap.frozen_context import run_stream
from gradtoken.tap.linear_cache import LinearCache
from gradtoken.trace.record import record
from tests.conftest import inputs, tiny_vit


def test_stream_reproduces_model_logits(variant: Model) -> None:
    images = inputs(variant)
    trace = record(variant, images)
    torch.testing.assert_close(trace.logits, variant(images), rtol=0, atol=0)
    stream = run_stream(
        variant.anatomy, variant.layout.rows, trace.block_record, trace.calls, LinearCache([])
    )
    logits = variant.module.forward_head(variant.module.norm(stream.tokens[trace.depth - 1]))
    torch.testing.assert_close(logits, trace.logits, rtol=1e-10, atol=1e-12)


def test_stream_readouts_rejects_model_that_does_more_than_its_blocks(batch: Tensor) -> None:
    class Shifted(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            for block in self:
                x = block(x) + 0.1
            return x

    module = tiny_vit()
    module.blocks.__class__ = Shifted
    model = gradtoken.wrap(module)
    with pytest.raises(ModelError, match=r'does not lead where .* leads.*use gradient="full"'):
        gradtoken.explain(model, batch, 1)
    assert gradtoken.explain(model, batch, 1, gradient="full").tokens.abs().max() > 0
