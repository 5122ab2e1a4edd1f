"""Seeing every attention call of a forward, without touching the model.

A `TorchFunctionMode` is asked before each torch function runs on this thread; the tap looks at
`scaled_dot_product_attention`, `multi_head_attention_forward` (what `nn.MultiheadAttention` calls)
and `linear`. Nothing is patched, fused kernels stay on, and leaving the `with` block is all the
undoing there is.
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
from gradtoken.precision import full_precision, wide
from gradtoken.tap.in_place import written_to
from gradtoken.tap.known_linear import LinearCall
from gradtoken.tap.positions import Positions

Rows: TypeAlias = slice | list[int]


TAIL = -1
"""The place of attention calls after the last block: attention pools and class attention."""


@dataclass(frozen=True)
class AttentionCall:
    """One attention call: what went in and what came out. Shapes (batch, heads, tokens, width).

    `output` is kept where it has a graph. `place` is the index of the block that made the call, or
    `TAIL`.
    """

    query: Float[Tensor, "batch heads queries width"]
    key: Float[Tensor, "batch heads tokens width"]
    value: Float[Tensor, "batch heads tokens width"]
    output: Float[Tensor, "batch heads queries width"] | None
    mask: Tensor | None
    scale: float
    place: int = 0

    def without_queries(self) -> AttentionCall:
        """The same, holding no more than keys and values: copies, where they share one tensor."""
        none = self.query.new_empty(*self.query.shape[:2], 0, self.query.shape[3])
        return replace(self, query=none, key=_own(self.key), value=_own(self.value))

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


def _own(tensor: Tensor) -> Tensor:
    """A tensor that keeps no other one in memory."""
    if tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


class AttentionTap(TorchFunctionMode):
    """Hands every attention call made under it to `attend`, and every linear layer to `linear`."""

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
        if func is F.linear:
            return self.linear(*args, **kwargs)
        return func(*args, **kwargs)

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Answer one linear layer."""
        return F.linear(input, weight, bias)

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
        q, k, v = (
            tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)
            for tokens in self._project(
                (query, key, value),
                in_proj_weight,
                (q_proj_weight, k_proj_weight, v_proj_weight),
                in_proj_bias,
            )
        )
        mask = attn_mask
        if mask is not None:
            mask = mask.logical_not() if mask.dtype == torch.bool else mask
            mask = mask.view(-1, num_heads, *mask.shape[1:]) if mask.ndim == 3 else mask
        call = _call(q, k, v, mask, is_causal=is_causal)
        output = self.attend(call, lambda: F.scaled_dot_product_attention(q, k, v, mask))
        joined = output.transpose(1, 2).flatten(2)
        weights_out = None
        if need_weights:
            weights_out = call.rows(slice(None)).to(output.dtype)
            weights_out = weights_out.mean(dim=1) if average_attn_weights else weights_out
        made = self.linear(joined, out_proj_weight, out_proj_bias)
        return made.transpose(0, 1), weights_out

    def _project(
        self,
        tokens: tuple[Tensor, Tensor, Tensor],
        packed: Tensor | None,
        separate: tuple[Tensor | None, Tensor | None, Tensor | None],
        bias: Tensor | None,
    ) -> Sequence[Tensor]:
        """Queries, keys and values (B, L, E) of tokens (L, B, E)."""
        query, key, value = (given.transpose(0, 1) for given in tokens)
        if packed is not None and tokens[0] is tokens[1] is tokens[2]:
            return self.linear(query, packed, bias).chunk(3, dim=-1)
        weights = separate if packed is None else packed.chunk(3)
        biases = [None] * 3 if bias is None else list(bias.chunk(3))
        return [
            F.linear(given, weight, own)
            for given, weight, own in zip((query, key, value), weights, biases, strict=True)
            if weight is not None
        ]


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
    if query.ndim < 4:
        raise ModelError(
            f"the model's attention is called on tensors of {query.ndim} dimensions, so heads, "
            "images and tokens cannot be told apart; give scaled_dot_product_attention tensors of "
            "shape (images, heads, tokens, channels)."
        )
    if enable_gqa and key.shape[1] != query.shape[1]:
        groups = query.shape[1] // key.shape[1]
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    return AttentionCall(query, key, value, None, attn_mask, scale)


class Recorder(AttentionTap):
    """Keeps references to what attention calls used and made, from the first block on.

    `place` says where the forward is: the index of a block, `TAIL` after the last one, or None
    where attention is of no interest (earlier stages of a hierarchical model).

    Args:
        rows: positions of readout tokens; what linear layers of the blocks make of them is copied.
        queries: keep those of the blocks' calls too.
        apart: what is kept is kept apart from what the model goes on with, since it may write there
            (`gradtoken.tap.in_place`).
    """

    def __init__(
        self, rows: tuple[int, ...] = (), *, queries: bool = True, apart: bool = False
    ) -> None:
        super().__init__()
        self.apart = apart
        self.written = False
        """Whether the model was seen to write in place."""
        self.place: int | None = None
        self.tokens: int | None = None
        """How many tokens entered the block at work."""
        self.calls: list[AttentionCall] = []
        self.linears: list[LinearCall] = []
        self._rows = Positions(rows)
        self._queries = queries

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.written = self.written or written_to(func, args, kwargs or {}) is not None
        return super().__torch_function__(func, types, args, kwargs)

    def following(self, kept: Tensor) -> Tensor:
        """What the model goes on with where a tensor is kept."""
        return kept.clone() if self.apart else kept

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        output = F.linear(input, weight, bias)
        inside = self.place is not None and self.place != TAIL
        if inside and self._rows and input.ndim == 3 and input.shape[1] == self.tokens:
            given, made = (self._rows.of(tokens).detach() for tokens in (input, output))
            self.linears.append(LinearCall(weight, given, made))
        return output

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        output = run()
        if self.place is not None:
            kept = output if output.requires_grad else None
            key, value = self.following(call.key), self.following(call.value)
            call = replace(call, key=key, value=value, output=kept, place=self.place)
            if not self._queries and self.place != TAIL:
                call = call.without_queries()
            else:
                call = replace(call, query=self.following(call.query))
            self.calls.append(call)
            return self.following(output)
        return output


class WrittenOut(Recorder):
    """Computes attention by its formula, so that its weights are nodes of the graph.

    Args:
        leaves: whether the weights become leaves, so that gradients end there.
        apart: as for `Recorder`.
    """

    def __init__(self, *, leaves: bool = False, apart: bool = False) -> None:
        super().__init__(apart=apart)
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
        return self.following(output)


class SelfAttention(AttentionTap):
    """Lets every token attend to itself alone: what comes out is what its value carries."""

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        return call.value
