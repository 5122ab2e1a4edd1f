"""AGCAM against its equation written out."""

from __future__ import annotations

import torch
from torch import Tensor

from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.oracle import Written


def by_hand(written: Written, label: int) -> Tensor:
    blocks, grads = written.attention_gradients(label)
    total = torch.zeros(len(blocks[0].entering), dtype=torch.float64)
    for block, grad in zip(blocks, grads, strict=True):
        for scores, gradient in zip(block.scores, grad, strict=True):
            total = total + gradient[0].clamp_min(0) / (1 + torch.exp(-scores[0]))
    return total


def test_agcam_equals_equation(variant: Model) -> None:
    assert_equals(variant, "agcam", by_hand)
