"""Batch normalisation of one image whose memory layout torch's own gradient reads wrongly.

On the CPU, in evaluation mode, torch (2.6 to 2.14 at least) returns a wrong gradient of batch
normalisation where the input or the gradient is a single image with the strides of channels last
but for the first one, as a transposed sequence of tokens has, and the other is contiguous. The
forward is right. XCiT's local patch interaction is such a place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from gradtoken.tap.function_mode import FunctionMode


class _ContiguousGradient(Function):
    @staticmethod
    def forward(normed: Tensor) -> Tensor:
        return normed.view_as(normed)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


class ContiguousBatchNorm(FunctionMode):
    """Normalises single images in the one layout whose gradient is right."""

    def intercept(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if func is not F.batch_norm:
            return func(*args, **kwargs)
        options = dict(kwargs)
        images = options.pop("input") if "input" in options else args[0]
        if len(images) > 1:
            return func(*args, **kwargs)
        return _ContiguousGradient.apply(func(images.contiguous(), *args[1:], **options))


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a module has batch normalisation, by the names of its parts' classes."""
    return any("BatchNorm" in type(part).__name__ for part in module.modules())
