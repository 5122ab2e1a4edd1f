"""Products with a context that many targets share."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def times_context(
    rows: Float[Tensor, "batch heads rows m"], context: Float[Tensor, "batch heads m n"]
) -> Float[Tensor, "batch heads rows n"]:
    """rows @ context, for a constant context.

    Under a batched vector-Jacobian product the vectors become more rows of one product, where
    autograd's own would copy the context for each of them.
    """
    product: Tensor = _TimesContext.apply(rows, context)
    return product


class _TimesContext(torch.autograd.Function):
    @staticmethod
    def forward(rows: Tensor, context: Tensor) -> Tensor:
        return rows @ context

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (context,) = ctx.saved_tensors
        return times_context(gradient, context.transpose(-2, -1)), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], rows: Tensor, context: Tensor) -> Any:
        batched = rows.movedim(in_dims[0], 2)
        product = batched.flatten(2, 3) @ context
        return product.unflatten(2, batched.shape[2:4]), 2
