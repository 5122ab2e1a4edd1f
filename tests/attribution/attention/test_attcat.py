"""AttCAT and CAT against their equations written out."""

from __future__ import annotations

import torch
from torch import Tensor

from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.oracle import Written


def by_hand(written: Written, label: int, attention: bool) -> Tensor:
    blocks, logits = written.forward()
    tokens = [block.entering for block in blocks]
    total = torch.zeros(len(tokens[0]), dtype=torch.float64)
    for block, grad in zip(blocks, torch.autograd.grad(logits[label], tokens), strict=True):
        for i, (token, direction) in enumerate(zip(block.entering, grad, strict=True)):
            received = block.attention[:, :, i].mean() if attention else 1
            total[i] += (received * torch.dot(token, direction)).detach()
    return total


def test_attcat_equals_equation(variant: Model) -> None:
    assert_equals(variant, "attcat", lambda written, label: by_hand(written, label, True))


def test_attcat_without_attention_equals_equation(variant: Model) -> None:
    assert_equals(
        variant, "attcat", lambda written, label: by_hand(written, label, False), attention=False
    )
