"""GAE against its equation written out."""

from __future__ import annotations

import torch
from torch import Tensor

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


def test_it_equals_the_equation(variant: Model) -> None:
    assert_equals(variant, "gae", by_hand)
