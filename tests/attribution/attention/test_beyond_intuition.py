"""Beyond Intuition, heads and tokens, against its equations written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.oracle import Written


def integrated(written: Written, label: int, steps: int) -> Tensor:
    total = 0
    for step in range(1, steps + 1):
        scaled = Written(written.module, written.image * step / steps)
        total = total + scaled.attention_gradients(label)[1][-1]
    return (total / steps).clamp_min(0).mean(0)[0]


def perceived(written: Written, label: int, variant: str) -> Tensor:
    blocks, grads = written.attention_gradients(label)
    state = torch.eye(len(blocks[0].entering), dtype=torch.float64)
    for block, grad, module in zip(blocks, grads, written.module.blocks, strict=True):
        if variant == "head":
            weight = torch.stack(
                [(a.T @ g).abs().mean() for a, g in zip(block.attention, grad, strict=True)]
            )
            weight = weight / weight.sum()
            mixing = sum(w * a for w, a in zip(weight, block.attention, strict=True))
        else:
            moved = written.projected(module, block.value).norm(dim=-1)
            mixing = block.attention.mean(0) @ torch.diag(moved / block.entering.norm(dim=-1))
        state = state + mixing @ state
    return state[0]


@pytest.mark.parametrize("kind", ["head", "token"])
def test_beyond_intuition_equals_equations(variant: Model, kind: str) -> None:
    assert_equals(
        variant,
        "beyond-intuition",
        lambda w, label: perceived(w, label, kind) * integrated(w, label, 4),
        variant=kind,
        steps=4,
    )


def test_beyond_intuition_rejects_unknown_variant() -> None:
    with pytest.raises(MethodError, match="variant is 'block'; it can be 'head' or 'token'"):
        make_method("beyond-intuition", variant="block")
