"""Layer-wise relevance propagation through an unmodified model.

A `TorchFunctionMode` gives each operation of a forward a backward that propagates relevance instead
of a gradient, by the rules of Chefer, Gur, Wolf, CVPR 2021, section 3.1: so `torch.autograd.grad`
of the logits by any node is that node's relevance. Every rule works within one image, so a batch
equals its images processed individually.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gradtoken.tap.attention_call import AttentionCall
from gradtoken.tap.recorder import EagerAttention

ADD = (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__)
MULTIPLY = (torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__)
MULTIPLY_MATRICES = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__)
PASS_ON = (
    F.layer_norm,
    F.rms_norm,
    F.gelu,
    F.silu,
    F.relu,
    F.softmax,
    torch.softmax,
    Tensor.softmax,
    torch.sigmoid,
    Tensor.sigmoid,
    torch.tanh,
    Tensor.tanh,
    torch.div,
    Tensor.div,
    Tensor.__truediv__,
    torch.neg,
    Tensor.neg,
    Tensor.__neg__,
)


class Relevance(EagerAttention):
    """A mode under which the backward of a forward propagates relevance; attention is eager."""

    def intercept(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if func is F.linear:
            return self.writable(_linear(*args, **kwargs))
        if func is F.multi_head_attention_forward:
            with self:
                return self.multi_head(args, kwargs)
        if func in ADD and not kwargs:
            return _add(*args)
        if func in MULTIPLY:
            return _multiply(*args)
        if func in MULTIPLY_MATRICES:
            return self.writable(_matmul(*args))
        if func in PASS_ON:
            return pass_on(func, *args, **kwargs)
        return super().intercept(func, args, kwargs)

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        """Attention as two matrix products, whose factors share relevance equally."""
        if self.place is None:
            return run()
        products = _Matmul.apply(call.query, call.key.transpose(-2, -1))
        weights = _PassOn.apply(products, call.rows(slice(None)).detach().to(products.dtype))
        self.weights.append(weights)
        return self.writable(_Matmul.apply(weights, call.value))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    return _Linear.apply(x, weight.detach(), bias if bias is None else bias.detach())


def _matmul(a: Any, b: Any) -> Any:
    """Two variables share relevance; a constant matrix is a linear layer's weight."""
    if varies(b) or b.ndim != 2:
        return _Matmul.apply(a, b)
    return _linear(a, b.transpose(0, 1))


def _add(a: Any, b: Any) -> Any:
    if varies(a) and varies(b):
        a, b = torch.broadcast_tensors(a, b)
        return _Add.apply(a, b)
    return pass_on(torch.add, *((a, b) if varies(a) else (b, a)))


def _multiply(a: Any, b: Any) -> Any:
    """A product of two variables shares relevance between them; a constant factor takes none."""
    if varies(a) and varies(b):
        product = (a * b).detach()
        return _Halved.apply(a.expand_as(product), b.expand_as(product), product)
    return pass_on(torch.mul, *((a, b) if varies(a) else (b, a)))


def varies(item: Any) -> bool:
    """Whether relevance is propagated to an item; constants and parameters get none."""
    return isinstance(item, Tensor) and item.requires_grad and not item.is_leaf


def pass_on(func: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
    """The function's value; relevance passes to `x` unchanged."""
    with torch.no_grad():
        value = func(x, *args, **kwargs)
    if not varies(x):
        return value
    return _PassOn.apply(x.expand_as(value), value)


def _share(relevance: Tensor, value: Tensor) -> Tensor:
    """relevance / value, and zero where the value is zero."""
    return torch.where(value == 0, 0, relevance / torch.where(value == 0, 1, value))


class _PassOn(torch.autograd.Function):
    """Passes relevance on unchanged: normalisation, activations, softmax."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> Any:
        return relevance, None


class _Halved(torch.autograd.Function):
    """Gives half of the relevance to each of two factors."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> Any:
        return relevance / 2, relevance / 2, None


class _Linear(torch.autograd.Function):
    """Distributes the relevance of output i in proportion to its positive parts x_j w_ji."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        up, down = (x.clamp_min(0), weight.clamp_min(0)), (x.clamp_max(0), weight.clamp_max(0))
        share = _share(relevance, F.linear(*up) + F.linear(*down))
        return up[0] * (share @ up[1]) + down[0] * (share @ down[1]), None, None


class _Matmul(torch.autograd.Function):
    """Gives half of the relevance of each product of entries to each of its two factors."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        product = a @ b
        ctx.save_for_backward(a, b, product)
        return product

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> Any:
        a, b, product = ctx.saved_tensors
        share = _share(relevance, product)
        return a * (share @ b.transpose(-2, -1)) / 2, b * (a.transpose(-2, -1) @ share) / 2


class _Add(torch.autograd.Function):
    """Gives relevance to two summands in proportion to their values, then rescales it.

    Each image's total is kept, split by the absolute totals of the two (eqs. 9 to 11).
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a + b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> Any:
        a, b = ctx.saved_tensors
        share = _share(relevance, a + b)
        parts = [a * share, b * share]
        sums = [_total(part) for part in parts]
        whole = sums[0].abs() + sums[1].abs()
        total = _total(relevance)
        return tuple(
            part * _share(_share(own.abs(), whole) * total, own)
            for part, own in zip(parts, sums, strict=True)
        )


def _total(values: Tensor) -> Tensor:
    """Sum over one image."""
    return values.sum(dim=tuple(range(1, values.ndim)), keepdim=True)
