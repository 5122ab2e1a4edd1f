"""Gradients at nodes, of one score and of a batch of vectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gradtoken.trace.autograd import gradients, vector_jacobian_products


class Doubled(torch.autograd.Function):
    """A custom function that cannot run batched."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * torch.tensor(2.0 if grad.sum().item() > -torch.inf else 0.0)


def test_gradients_are_zero_where_score_does_not_depend() -> None:
    used, unused = (torch.ones(3, requires_grad=True) for _ in range(2))
    grads = gradients((used * torch.arange(3)).sum(), [used, unused])
    assert [grad.tolist() for grad in grads] == [[0, 1, 2], [0, 0, 0]]


@pytest.mark.parametrize("double", [lambda x: 2 * x, Doubled.apply], ids=["batched", "in turn"])
def test_vector_jacobian_products_equal_single_products(double) -> None:
    node = torch.arange(4.0, requires_grad=True)
    outputs = [double(node), node.square()]
    vectors = [torch.eye(4)[:3], torch.ones(3, 4)]
    (products,) = vector_jacobian_products(outputs, [node], vectors)
    expected = 2 * torch.eye(4)[:3] + 2 * torch.arange(4.0)
    torch.testing.assert_close(products, expected)
