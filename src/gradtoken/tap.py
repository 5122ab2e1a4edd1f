"""Seeing every attention call of a forward, without touching the model.

A `TorchFunctionMode` is asked before each torch function runs on this thread; the tap looks at
`scaled_dot_product_attention` and `multi_head_attention_forward` (what `nn.MultiheadAttention`
calls). Nothing is patched, fused kernels stay on, and leaving the `with` block is all the undoing
there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gradtoken.errors import ModelError
from gradtoken.shared_context import times_context

Rows: TypeAlias = slice | list[int]


TAIL = -1
"""The place of attention calls after the last block: attention pools and class attention."""


@dataclass(frozen=True)
class AttentionCall:
    """One attention call: what went in and what came out. Shapes (batch, heads, tokens, width).

    `place` is the index of the block that made it, or `TAIL`.
    """

    query: Float[Tensor, "batch heads queries width"]
    key: Float[Tensor, "batch heads tokens width"]
    value: Float[Tensor, "batch heads tokens width"]
    output: Float[Tensor, "batch heads queries width"] | None
    mask: Tensor | None
    scale: float
    place: int = 0

    def rows(self, rows: Rows) -> Float[Tensor, "batch heads rows tokens"]:
        """Attention of some queries to every token: softmax(q k / sqrt(d)), in float32 or wider."""
        return self.scores(rows).softmax(-1)

    def scores(self, rows: Rows) -> Float[Tensor, "batch heads rows tokens"]:
        """Attention before the softmax, with any mask or position bias added."""
        query = wide(self.query[:, :, rows])
        with full_precision(query):
            scores = query @ wide(self.key).transpose(-2, -1) * self.scale
            return scores + self.bias(rows, scores)

    def bias(self, rows: Rows, like: Tensor) -> Tensor:
        """The mask's rows as an additive bias in the type of `like`."""
        if self.mask is None:
            return like.new_zeros(())
        mask = self.mask if self.mask.shape[-2] == 1 else self.mask[..., rows, :]
        if mask.dtype == torch.bool:
            return like.new_zeros(mask.shape).masked_fill(~mask, -torch.inf)
        return mask.to(like.dtype)


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it is in half precision, else unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def full_precision(like: Tensor) -> torch.autocast:
    """A context without autocast on a tensor's device, for sums that half precision would blur."""
    return torch.autocast(like.device.type, enabled=False)


class AttentionTap(TorchFunctionMode):
    """Hands every attention call made under it to `attend`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            call = _call(*args, **kwargs)
            return self.attend(call, lambda: func(*args, **kwargs))
        if func is F.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        return func(*args, **kwargs)

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        """Answer one call; `run` computes it as the model would."""
        raise NotImplementedError

    def _multi_head(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        embed_dim_to_check: int,
        num_heads: int,
        in_proj_weight: Tensor | None,
        in_proj_bias: Tensor | None,
        bias_k: Tensor | None,
        bias_v: Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_proj_weight: Tensor,
        out_proj_bias: Tensor | None,
        training: bool = True,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        use_separate_proj_weight: bool = False,
        q_proj_weight: Tensor | None = None,
        k_proj_weight: Tensor | None = None,
        v_proj_weight: Tensor | None = None,
        static_k: Tensor | None = None,
        static_v: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """`F.multi_head_attention_forward` as projections around one `attend`.

        Tokens come first: `query` (L, B, E), `key` and `value` (S, B, E).
        """
        unread = [
            t for t in (bias_k, bias_v, key_padding_mask, static_k, static_v) if t is not None
        ]
        if unread or add_zero_attn or query.ndim != 3:
            raise ModelError(
                "the model calls multi_head_attention_forward with padding, extra keys or without "
                "a batch, which cannot be read; use a model whose attention sees every token."
            )
        given: Sequence[Tensor | None] = (q_proj_weight, k_proj_weight, v_proj_weight)
        if not use_separate_proj_weight and in_proj_weight is not None:
            given = in_proj_weight.chunk(3)
        weights = [weight for weight in given if weight is not None]
        biases = [None] * 3 if in_proj_bias is None else list(in_proj_bias.chunk(3))
        q, k, v = (
            F.linear(tokens, weight, bias).unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3)
            for tokens, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        mask = attn_mask
        if mask is not None:
            mask = mask.logical_not() if mask.dtype == torch.bool else mask
            mask = mask.view(-1, num_heads, *mask.shape[1:]) if mask.ndim == 3 else mask
        call = _call(q, k, v, mask, is_causal=is_causal)
        output = self.attend(call, lambda: F.scaled_dot_product_attention(q, k, v, mask))
        joined = output.permute(2, 0, 1, 3).flatten(2)
        weights_out = None
        if need_weights:
            weights_out = call.rows(slice(None)).to(output.dtype)
            weights_out = weights_out.mean(dim=1) if average_attn_weights else weights_out
        return F.linear(joined, out_proj_weight, out_proj_bias), weights_out


def _call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionCall:
    if is_causal and query.shape[-2] > 1:
        raise ModelError(
            "the model's attention is causal; only bidirectional attention can be read."
        )
    if enable_gqa and key.shape[1] != query.shape[1]:
        groups = query.shape[1] // key.shape[1]
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    return AttentionCall(
        query, key, value, None, attn_mask, scale or 1 / math.sqrt(query.shape[-1])
    )


class Recorder(AttentionTap):
    """Keeps references to what attention calls used and made, from the first block on.

    `place` says where the forward is: the index of a block, `TAIL` after the last one, or None
    where attention is of no interest (earlier stages of a hierarchical model).
    """

    def __init__(self) -> None:
        super().__init__()
        self.place: int | None = None
        self.calls: list[AttentionCall] = []

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        output = run()
        if self.place is not None:
            self.calls.append(replace(call, output=output, place=self.place))
        return output


class WrittenOut(Recorder):
    """Computes attention by its formula, so that its weights are nodes of the graph.

    Args:
        leaves: whether the weights become leaves, so that gradients end there.
    """

    def __init__(self, *, leaves: bool = False) -> None:
        super().__init__()
        self._leaves = leaves
        self.weights: list[Float[Tensor, "batch heads queries tokens"]] = []
        """One for each of `calls`."""

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        if self.place is None:
            return run()
        weights = call.rows(slice(None))
        if self._leaves:
            weights = weights.detach().requires_grad_()
        output = weights.to(call.value.dtype) @ call.value
        self.weights.append(weights)
        self.calls.append(replace(call, output=output, place=self.place))
        return output


class SelfAttention(AttentionTap):
    """Lets every token attend to itself alone: what comes out is what its value carries."""

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        return call.value


class FrozenContext(AttentionTap):
    """Lets the readout tokens alone attend to the tokens of an earlier forward.

    Each call's own keys and values (the live tokens) stand in for the positions `readout` of the
    recorded ones; all other keys and values are the recorded constants, which are never copied.
    """

    def __init__(self, calls: list[AttentionCall], readout: tuple[int, ...]) -> None:
        super().__init__()
        self._calls = calls
        self._readout = list(readout)
        self.outputs: list[Float[Tensor, "batch heads rows width"]] = []
        self.attention: list[Float[Tensor, "batch heads rows tokens"]] = []

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        if len(self.outputs) == len(self._calls):
            raise ModelError("the blocks made more attention calls for one token than for all.")
        if call.query.shape[2] != len(self._readout):
            raise ModelError(
                "a block added tokens of its own, so the readout cannot run through it alone."
            )
        context = self._calls[len(self.outputs)]
        query = call.query * context.scale
        scores = times_context(query, context.key.detach().transpose(-2, -1))
        own = (query[:, :, :, None] * call.key[:, :, None]).sum(-1).to(scores.dtype)
        index = torch.tensor(self._readout, device=scores.device)
        scores = wide(scores.index_copy(-1, index, own))
        attention = (scores + context.bias(self._readout, scores)).softmax(-1)
        self.attention.append(attention.detach())
        attention, values = attention.to(call.value.dtype), context.value.detach()
        change = call.value - values[:, :, self._readout]
        live = (attention[..., self._readout, None] * change[:, :, None]).sum(-2)
        output = times_context(attention, values) + live
        self.outputs.append(output)
        return output
