"""Intercepting every attention call of a forward, without touching the model.

`scaled_dot_product_attention`, `multi_head_attention_forward` (what `nn.MultiheadAttention` calls)
and `linear` are intercepted on this thread. Nothing is patched, fused kernels stay on, and leaving
the `with` block undoes everything.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gradtoken.errors import ModelError
from gradtoken.tap.attention_call import AttentionCall, attention_call
from gradtoken.tap.function_mode import FunctionMode

_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)
_NOT_SUPPORTED = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v")


class AttentionTap(FunctionMode):
    """Hands every attention call made under it to `attend`, and every linear layer to `linear`."""

    def intercept(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            call = attention_call(*args, **kwargs)
            return self.attend(call, lambda: func(*args, **kwargs))
        if func is F.multi_head_attention_forward:
            return self.multi_head(args, kwargs)
        if func is F.linear:
            return self.linear(*args, **kwargs)
        return func(*args, **kwargs)

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Answer one linear layer."""
        return F.linear(input, weight, bias)

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        """Answer one call; `run` computes it as the model would."""
        raise NotImplementedError

    def multi_head(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """Answer `F.multi_head_attention_forward` by linear layers around one `attend`.

        Raises:
            ModelError: if it pads, adds keys or has no batch dimension.
        """
        bound = _MULTI_HEAD.bind(*args, **kwargs)
        bound.apply_defaults()
        inputs = SimpleNamespace(**bound.arguments)
        if (
            inputs.add_zero_attn
            or inputs.query.ndim != 3
            or any(bound.arguments[name] is not None for name in _NOT_SUPPORTED)
        ):
            raise ModelError(
                "the model calls multi_head_attention_forward with padding, extra keys or without "
                "a batch, which cannot be read; use a model whose attention sees every token."
            )
        heads = inputs.num_heads
        q, k, v = (
            tokens.unflatten(-1, (heads, -1)).transpose(1, 2) for tokens in self._project(inputs)
        )
        mask = inputs.attn_mask
        if mask is not None:
            mask = mask.logical_not() if mask.dtype == torch.bool else mask
            mask = mask.view(-1, heads, *mask.shape[1:]) if mask.ndim == 3 else mask
        call = attention_call(q, k, v, mask, is_causal=inputs.is_causal)
        output = self.attend(call, lambda: F.scaled_dot_product_attention(q, k, v, mask))
        weights = None
        if inputs.need_weights:
            weights = call.rows(slice(None)).to(output.dtype)
            weights = weights.mean(dim=1) if inputs.average_attn_weights else weights
        joined = output.transpose(1, 2).flatten(2)
        projected = self.linear(joined, inputs.out_proj_weight, inputs.out_proj_bias)
        return projected.transpose(0, 1), weights

    def _project(self, inputs: SimpleNamespace) -> Sequence[Tensor]:
        """Queries, keys and values (B, L, E) of tokens (L, B, E)."""
        query, key, value = (t.transpose(0, 1) for t in (inputs.query, inputs.key, inputs.value))
        packed, bias = inputs.in_proj_weight, inputs.in_proj_bias
        if packed is not None and inputs.query is inputs.key is inputs.value:
            return self.linear(query, packed, bias).chunk(3, dim=-1)
        separate = (inputs.q_proj_weight, inputs.k_proj_weight, inputs.v_proj_weight)
        weights = separate if packed is None else packed.chunk(3)
        biases = [None] * 3 if bias is None else list(bias.chunk(3))
        return [
            F.linear(tokens, weight, own)
            for tokens, weight, own in zip((query, key, value), weights, biases, strict=True)
            if weight is not None
        ]


class SelfAttention(AttentionTap):
    """Lets every token attend to itself alone: the output is its value."""

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        return call.value
