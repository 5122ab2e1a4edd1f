"""Class-aware gradients of the readout against plain autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace.gradients import readouts
from gradtoken.trace.record import record
from tests.conftest import inputs
from tests.oracle import Written

CLASSES = [3, 7]


def test_readouts_stream_equals_full_gradient_in_last_two_blocks(variant: Model) -> None:
    trace = record(variant, inputs(variant))
    targets = resolve(CLASSES, trace.logits, variant.labels)
    stream, full = (
        [step for block in readouts(trace, targets, gradient=kind).blocks for step in block]
        for kind in ("stream", "full")
    )
    for ours, whole in zip(stream[-2:], full[-2:], strict=True):
        torch.testing.assert_close(ours.gradient, whole.gradient, rtol=1e-10, atol=1e-13)
    assert not torch.allclose(stream[0].gradient, full[0].gradient, rtol=1e-6)
    for ours, whole in zip(stream, full, strict=True):
        torch.testing.assert_close(ours.attention, whole.attention)
        torch.testing.assert_close(ours.output, whole.output)


def test_readouts_relation_equals_gradient_by_attention(model: Model, batch: Tensor) -> None:
    """<gamma, v_i> = dy/da_i, so A * dA in the class row is an independent oracle."""
    trace = record(model, batch[:1])
    targets = resolve([3], trace.logits, model.labels)
    (last,) = readouts(trace, targets).blocks[-1]
    written = Written(model.module, batch[0])
    blocks, _ = written.forward()
    weights = blocks[-1].attention[:, 0].detach().requires_grad_()
    row = torch.einsum("hn,hnd->hd", weights, blocks[-1].value.detach())
    output = torch.cat([row[:, None], blocks[-1].output[:, 1:].detach()], dim=1)
    tokens = written.after(model.module.blocks[-1], blocks[-1].entering.detach(), output)
    (expected,) = torch.autograd.grad(written.logits(tokens)[3], weights)
    relation = torch.einsum("hd,hnd->hn", last.gradient[0, :, 0, 0], last.value[0])
    torch.testing.assert_close(relation, expected, rtol=1e-10, atol=1e-13)
