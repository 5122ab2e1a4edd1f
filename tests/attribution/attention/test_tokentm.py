"""TokenTM against its equation written out."""

from __future__ import annotations

import torch
from torch import Tensor

from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.oracle import Written


def change(before: Tensor, after: Tensor) -> Tensor:
    cosine = torch.stack(
        [torch.dot(a, b) / (a.norm() * b.norm()) for a, b in zip(before, after, strict=True)]
    )
    longer = torch.stack([b.norm() / a.norm() for a, b in zip(before, after, strict=True)])
    return torch.diag(longer * cosine.exp() / cosine.exp().sum())


def by_hand(written: Written, label: int) -> Tensor:
    blocks, grads = written.attention_gradients(label)
    identity = torch.eye(len(blocks[0].entering), dtype=torch.float64)
    state = torch.diag(blocks[0].entering.norm(dim=-1))
    for block, grad, module in zip(blocks, grads, written.module.blocks, strict=True):
        moved = written.projected(module, block.value)
        mixing = block.attention.mean(0) @ change(block.entering, moved)
        state = (identity + mixing * grad.clamp_min(0).mean(0)) @ state
        state = (identity + change(block.middle, block.leaving - block.middle)) @ state
    return state[0]


def test_tokentm_equals_equation(variant: Model) -> None:
    assert_equals(variant, "tokentm", by_hand)
