"""Gradient rollout against its definition written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.oracle import Written


def by_hand(written: Written, label: int, discard: float) -> Tensor:
    blocks, grads = written.attention_gradients(label)
    product = torch.eye(len(blocks[0].entering), dtype=torch.float64)
    for block, grad in zip(blocks, grads, strict=True):
        mixing = (block.attention * grad).mean(0).clamp_min(0).detach()
        ranked = sorted(mixing.flatten().tolist())
        dropped = int(len(ranked) * discard)
        if dropped:
            mixing = torch.where(mixing > ranked[dropped - 1], mixing, 0)
        mixing = mixing + torch.eye(len(mixing), dtype=torch.float64)
        product = (mixing / mixing.sum(-1, keepdim=True)) @ product
    return product[0]


@pytest.mark.parametrize("discard", [0.9, 0.25, 0])
def test_grad_rollout_equals_definition(model: Model, discard: float) -> None:
    assert_equals(
        model,
        "grad-rollout",
        lambda written, label: by_hand(written, label, discard),
        discard=discard,
    )


def test_grad_rollout_in_every_layout(variant: Model) -> None:
    assert_equals(variant, "grad-rollout", lambda written, label: by_hand(written, label, 0.9))


@pytest.mark.parametrize("discard", [1, -0.1, "most"])
def test_grad_rollout_rejects_discard_out_of_range(discard: object) -> None:
    with pytest.raises(MethodError, match=r"grad-rollout's discard is .* from 0 to below 1"):
        make_method("grad-rollout", discard=discard)
