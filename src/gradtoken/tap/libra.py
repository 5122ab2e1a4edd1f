"""LibraGrad's backward pass: a forward as it is, whose gradient flows in balance.

After Mehri, Baghshah, Pilehvar, CVPR 2025, section 3.5. Of a nonlinear factor the gradient is
dropped (attention weights, gates of activations, denominators of normalisations); where two
variables are multiplied, each gets half of it. So the model is, at its input, a linear function
with biases, and gradient times value is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradtoken.errors import NotSupportedError
from gradtoken.precision import wide
from gradtoken.tap.attention_call import AttentionCall
from gradtoken.tap.attention_tap import AttentionTap
from gradtoken.tap.function_mode import FunctionMode
from gradtoken.tap.operations import REARRANGE, NoRule, items_of

_AFFINE = REARRANGE | {
    *("add", "add_", "__add__", "__radd__", "__iadd__", "neg", "__neg__", "mean", "sum"),
    *("sub", "sub_", "__sub__", "__rsub__", "__isub__", "rsub", "subtract"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d"),
    *("amax", "max", "max_pool2d", "adaptive_max_pool2d", "relu", "relu_", "leaky_relu", "clamp"),
    *("bfloat16", "broadcast_to", "concat", "concatenate", "flip", "fold", "gather", "hstack"),
    *("index_select", "interpolate", "masked_fill", "masked_fill_", "pad", "repeat_interleave"),
    *("roll", "split_with_sizes", "t", "tensor_split", "tile", "unfold", "vstack", "where"),
    *("__iter__", "__setitem__", "moveaxis", "empty_like", "zeros_like", "ones_like", "fill_"),
    *("new_zeros", "new_empty", "requires_grad_", "dropout2d", "alpha_dropout"),
}
"""Functions that are affine, or so near their input, or that change no value."""

_PRODUCTS = {
    *("mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"),
    *("matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "einsum"),
    *("linear", "conv1d", "conv2d", "conv3d"),
}
"""Products of two factors, of which one or both are variables."""

Rule = Callable[..., Any]


class Libra(AttentionTap):
    """A mode under which the gradient of a forward is LibraGrad's; the forward is unchanged.

    Parameters, and what is computed of them alone, are constants. Enter it after other taps.

    Args:
        spec: the model's name, for errors.
    """

    def __init__(self, spec: str) -> None:
        super().__init__()
        self._spec = spec

    def intercept(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            value = func(*args, **kwargs)
            return value.detach() if isinstance(args[0], nn.Parameter) and _is(value) else value
        args = _constant(args)
        kwargs = {key: _constant(value) for key, value in kwargs.items()}
        if func is F.multi_head_attention_forward:
            return self.multi_head(args, kwargs)
        if func is F.scaled_dot_product_attention:
            return _attention(func, *args, **kwargs)
        variables = sum(_is(item) and item.requires_grad for item in items_of(args, kwargs))
        if not variables or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if name in _RULES:
            return _RULES[name](func, *args, **kwargs)
        output = func(*args, **kwargs)
        if name in _AFFINE or (name in _PRODUCTS and variables == 1) or _fixed(name, args, kwargs):
            return output
        if name in _PRODUCTS and variables == 2:
            return _halved(output)
        return self._without_rule(output, name)

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        query, key, mask = call.query, call.key, call.mask
        return _attention(
            F.scaled_dot_product_attention, query, key, call.value, mask, scale=call.scale
        )

    def _without_rule(self, output: Any, name: str) -> Any:
        if isinstance(output, (tuple, list)):
            return type(output)([self._without_rule(item, name) for item in output])
        if not (_is(output) and output.requires_grad):
            return output
        error = NotSupportedError(
            f"with libra=True has no rule for {name}, which {self._spec} uses; use libra=False."
        )
        return NoRule.apply(output, error)


class ConstantNorms(FunctionMode):
    """A mode under which `normalize` divides by constants, as the score of a text prompt does."""

    def intercept(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return (_normalize if func is F.normalize else _as_is)(func, *args, **kwargs)


class _Scaled(torch.autograd.Function):
    """A function's own value; the gradient by its input is that of factor * (x - mean x).

    Without dimensions of the mean, that of factor * x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        func: Callable[[Tensor], Tensor],
        factor: Tensor,
        centred: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(factor)
        ctx.centred = centred
        return func(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (factor,) = ctx.saved_tensors
        scaled = gradient.to(factor.dtype) * factor
        if ctx.centred:
            scaled = scaled - scaled.mean(ctx.centred, keepdim=True)
        return scaled.to(gradient.dtype), None, None, None


def _is(item: Any) -> bool:
    return isinstance(item, Tensor)


def _constant(item: Any) -> Any:
    """An argument with the parameters in it detached."""
    if isinstance(item, nn.Parameter):
        return item.detach()
    if type(item) in (list, tuple):
        return type(item)(_constant(element) for element in item)
    return item


def _as_is(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return func(*args, **kwargs)


def _fixed(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether it is batch normalisation by recorded statistics, which is affine."""
    training = kwargs.get("training", args[5] if len(args) > 5 else False)
    return name == "batch_norm" and not training


def _halved(product: Tensor) -> Tensor:
    """A product with half of its gradient."""
    half = product / 2
    return half + half.detach()


def _attention(
    func: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    mask = None if attn_mask is None else attn_mask.detach()
    return func(query.detach(), key.detach(), value, mask, *args, **kwargs)


def _dropped(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A nonlinear factor: its value is a constant."""
    return func(*args, **kwargs).detach()


def _layer_norm(
    func: Callable[..., Tensor],
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *args: Any,
) -> Any:
    dims = tuple(range(-len(normalized_shape), 0))
    values = wide(input.detach())
    scale = (values.var(dims, unbiased=False, keepdim=True) + eps).rsqrt()
    factor = scale if weight is None else scale * weight
    return _Scaled.apply(
        input, lambda x: func(x, normalized_shape, weight, bias, eps, *args), factor, dims
    )


def _rms_norm(
    func: Callable[..., Tensor],
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    dims = tuple(range(-len(normalized_shape), 0))
    least = torch.finfo(input.dtype).eps if eps is None else eps
    scale = (wide(input.detach()).square().mean(dims, keepdim=True) + least).rsqrt()
    factor = scale if weight is None else scale * weight
    return _Scaled.apply(input, lambda x: func(x, normalized_shape, weight, eps), factor, ())


def _gelu(func: Callable[..., Tensor], input: Tensor, approximate: str = "none") -> Any:
    x = wide(input.detach())
    if approximate == "tanh":
        gate = (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2
    else:
        gate = torch.special.ndtr(x)
    return _Scaled.apply(input, lambda x: func(x, approximate=approximate), gate, ())


def _silu(func: Callable[..., Tensor], input: Tensor, *_: Any, **__: Any) -> Any:
    return _Scaled.apply(input, func, wide(input.detach()).sigmoid(), ())


def _normalize(
    _: Callable[..., Tensor],
    input: Tensor,
    p: float = 2.0,
    dim: int = 1,
    eps: float = 1e-12,
    **__: Any,
) -> Tensor:
    return input / input.detach().norm(p, dim, keepdim=True).clamp_min(eps)


def _divide(func: Callable[..., Tensor], input: Tensor, other: Any, **kwargs: Any) -> Tensor:
    return func(input, other.detach() if _is(other) else other, **kwargs)


_RULES: dict[str, Rule] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "gelu": _gelu,
    "silu": _silu,
    "normalize": _normalize,
    **dict.fromkeys(("softmax", "sigmoid", "hardsigmoid"), _dropped),
    **dict.fromkeys(("rsqrt", "reciprocal", "__rtruediv__", "__rdiv__"), _dropped),
    **dict.fromkeys(
        ("div", "div_", "divide", "true_divide", "__truediv__", "__itruediv__"), _divide
    ),
}
"""The value of a function, with LibraGrad's gradient, by the function's name."""
