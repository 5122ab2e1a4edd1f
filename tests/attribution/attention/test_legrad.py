"""LeGrad against its equation written out."""

from __future__ import annotations

import torch
from torch import Tensor

from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.oracle import Written


def by_hand(written: Written, label: int, layers: list[int]) -> Tensor:
    blocks, _ = written.forward()
    total = torch.zeros(len(blocks[0].entering), dtype=torch.float64)
    for index in layers:
        block, module = blocks[index], written.module.blocks[index]
        attention = block.attention.detach().requires_grad_()
        output = attention @ block.value.detach()
        pooled = written.after(module, block.entering.detach(), output).mean(0, keepdim=True)
        score = written.logits(pooled)[label]
        (grad,) = torch.autograd.grad(score, attention)
        total = total + grad.clamp_min(0).mean(dim=(0, 1))
    return total


def test_legrad_equals_equation(variant: Model) -> None:
    assert_equals(variant, "legrad", lambda w, label: by_hand(w, label, [0, 1, 2, 3]))


def test_legrad_of_last_two_layers_equals_equation(model: Model) -> None:
    assert_equals(model, "legrad", lambda w, label: by_hand(w, label, [2, 3]), layers=2)
