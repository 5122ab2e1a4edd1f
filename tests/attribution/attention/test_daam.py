"""DAAM against its equation written out, and against the steps of the published code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.oracle import Written


def by_hand(written: Written, label: int, scale: bool = True) -> Tensor:
    blocks, logits = written.forward()
    grads = torch.autograd.grad(logits[label], [b.output for b in blocks])
    prefix = written.module.num_prefix_tokens
    total = torch.zeros(len(blocks[0].entering), dtype=torch.float64)
    for block, grad in zip(blocks, grads, strict=True):
        own = torch.zeros_like(total)
        for head in range(len(grad)):
            positive = grad[head, 0].clamp_min(0)
            for i, value in enumerate(block.value[head]):
                own[i] += torch.dot(positive, block.attention[head, 0, i] * value)
        own = own.detach().clamp_min(0)
        if scale:
            patches = own[prefix:]
            own = (own - patches.min()) / (patches.max() - patches.min())
        total += own
    return total


def test_daam_equals_equation(variant: Model) -> None:
    assert_equals(variant, "daam", by_hand)


def test_daam_without_scale_equals_equation(model: Model) -> None:
    assert_equals(model, "daam", lambda w, label: by_hand(w, label, False), scale=False)


def test_daam_rejects_scale_that_is_no_flag() -> None:
    with pytest.raises(MethodError, match="daam's scale is 1; it can be True or False"):
        make_method("daam", scale=1)
