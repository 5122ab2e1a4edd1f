"""Kinds of torch functions, by name, for taps that give a forward another backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

REARRANGE = frozenset(
    {
        "__get__",
        "__getitem__",
        "cat",
        "chunk",
        "clone",
        "contiguous",
        "copy_",
        "detach",
        "double",
        "dropout",
        "expand",
        "expand_as",
        "flatten",
        "float",
        "half",
        "movedim",
        "narrow",
        "permute",
        "repeat",
        "reshape",
        "select",
        "split",
        "squeeze",
        "stack",
        "swapaxes",
        "swapdims",
        "to",
        "transpose",
        "type_as",
        "unbind",
        "unflatten",
        "unsqueeze",
        "view",
        "view_as",
        "__len__",
        "dim",
        "is_complex",
        "is_floating_point",
        "ndimension",
        "numel",
        "size",
        "stride",
    }
)
"""Functions whose gradient rearranges values without changing them."""


class NoRule(torch.autograd.Function):
    """Raises an error when a gradient arrives; a value that gets none passes."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, error: Exception) -> Tensor:
        ctx.error = error
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        raise ctx.error


def items_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """A function's arguments, with lists and tuples unpacked."""
    arguments: list[Any] = []
    for item in (*args, *kwargs.values()):
        arguments.extend(item if isinstance(item, (list, tuple)) else [item])
    return arguments
