"""GMAR against its equation written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.oracle import Written


def by_hand(written: Written, label: int, norm: str = "l1") -> Tensor:
    blocks, grads = written.attention_gradients(label)
    row = torch.zeros(1, len(blocks[0].entering), dtype=torch.float64)
    row[0, 0] = 1
    for block, grad in zip(reversed(blocks), reversed(grads), strict=True):
        sizes = [g.abs().sum() if norm == "l1" else (g**2).sum().sqrt() for g in grad]
        matrix = torch.eye(row.shape[1], dtype=torch.float64)
        for size, attention in zip(sizes, block.attention, strict=True):
            matrix = matrix + size / sum(sizes) * attention
        row = row @ (matrix / matrix.sum(-1, keepdim=True))
    return row[0]


def test_gmar_equals_equation(variant: Model) -> None:
    assert_equals(variant, "gmar", by_hand)


def test_gmar_with_l2_norm_equals_equation(model: Model) -> None:
    assert_equals(model, "gmar", lambda w, label: by_hand(w, label, "l2"), norm="l2")


def test_gmar_rejects_unknown_norm() -> None:
    with pytest.raises(MethodError, match="gmar's norm is 'l3'; it can be 'l1' or 'l2'"):
        make_method("gmar", norm="l3")
