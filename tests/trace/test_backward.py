"""Backpropagation through the tail."""

from __future__ import annotations

import torch
from torch import Tensor

import gradtoken
from tests.conftest import tiny_vit


def test_backward_through_tail_includes_code_after_blocks(batch: Tensor) -> None:
    class Sharper(type(tiny_vit())):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2 + 1

    module = tiny_vit()
    plain = gradtoken.explain(gradtoken.wrap(module), batch, 1, rivals=0).tokens
    module.__class__ = Sharper
    sharper = gradtoken.explain(gradtoken.wrap(module), batch, 1, rivals=0).tokens
    torch.testing.assert_close(sharper, 2 * plain)
