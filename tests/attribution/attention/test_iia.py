"""IIA against its equation written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.conftest import inputs
from tests.oracle import Written


def attentions(written: Written, share: float) -> tuple[list[Tensor], Tensor]:
    """Each block's attention (H, N, N), the last replaced by a share of it, and the logits."""
    tokens, kept = written.embed(), []
    last = written.module.blocks[-1]
    for block in written.module.blocks:
        q, k, v = written.heads(block, block.norm1(tokens))
        attention = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
        if block is last:
            attention = (share * attention).detach().requires_grad_()
        kept.append(attention)
        tokens = written.after(block, tokens, attention @ v)
    return kept, written.logits(tokens)


def by_hand(written: Written, label: int, steps: int) -> Tensor:
    points = [i / steps for i in range(steps + 1)]
    means = 0
    for scale in points:
        for share in points:
            scaled = Written(written.module, written.image * scale)
            weights, logits = attentions(scaled, share)
            grads = torch.autograd.grad(logits[label], weights)
            positive = [(a * g).clamp_min(0) for a, g in zip(weights, grads, strict=True)]
            means = means + torch.stack(positive).mean(1) / len(points) ** 2
    state = torch.eye(means.shape[-1], dtype=torch.float64)
    for matrix in means:
        mixing = matrix + torch.eye(len(matrix), dtype=torch.float64)
        state = mixing / mixing.sum(-1, keepdim=True) @ state
    return state[0]


@pytest.mark.parametrize("steps", [1, 3])
def test_iia_equals_equation(model: Model, steps: int) -> None:
    assert_equals(model, "iia", lambda written, label: by_hand(written, label, steps), steps=steps)


def test_iia_of_every_layout(variant: Model) -> None:
    assert_equals(variant, "iia", lambda written, label: by_hand(written, label, 2), steps=2)


def test_iia_rejects_steps(model: Model) -> None:
    with pytest.raises(MethodError, match="iia's steps is 0; it must be a whole number from 1 up"):
        gradtoken.explain(model, inputs(model), 3, method="iia", steps=0)
