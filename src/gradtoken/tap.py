"""Seeing every attention call of a forward, without touching the model.

A `TorchFunctionMode` is asked before each torch function runs on this thread; the tap looks at
`scaled_dot_product_attention` only. Nothing is patched, fused kernels stay on, and leaving the
`with` block is all the undoing there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gradtoken.errors import ModelError


@dataclass(frozen=True)
class AttentionCall:
    """One attention call: what went in and what came out. Shapes (batch, heads, tokens, width)."""

    query: Float[Tensor, "batch heads queries width"]
    key: Float[Tensor, "batch heads tokens width"]
    value: Float[Tensor, "batch heads tokens width"]
    output: Float[Tensor, "batch heads queries width"] | None
    mask: Tensor | None
    scale: float

    def rows(self, rows: slice | int) -> Float[Tensor, "batch heads rows tokens"]:
        """Attention of some queries to every token: softmax(q k / sqrt(d)), in float32 or wider."""
        picked = slice(rows, rows + 1) if isinstance(rows, int) else rows
        query = wide(self.query[:, :, picked])
        with full_precision(query):
            scores = query @ wide(self.key).transpose(-2, -1) * self.scale
            return (scores + self.bias(picked, scores)).softmax(-1)

    def bias(self, rows: slice, like: Tensor) -> Tensor:
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
    """Hands every `scaled_dot_product_attention` call made under it to `attend`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        call = _call(*args, **kwargs)
        return self.attend(call, lambda: func(*args, **kwargs))

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        """Answer one call; `run` computes it as the model would."""
        raise NotImplementedError


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
    if is_causal:
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
    """Keeps references to what every attention call used and made."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[AttentionCall] = []

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        output = run()
        self.calls.append(replace(call, output=output))
        return output


class FrozenContext(AttentionTap):
    """Lets one token attend to the tokens of an earlier forward.

    Each call's own key and value (one live token per row) stand in for position `readout` of the
    recorded ones; all other keys and values are the recorded constants. Rows are targets: the live
    batch is (batch · rows) and each row sees the context of its picture, which is never copied.
    """

    def __init__(self, calls: list[AttentionCall], readout: int) -> None:
        super().__init__()
        self._calls = calls
        self._readout = readout
        self.outputs: list[Float[Tensor, "batch heads rows width"]] = []
        self.attention: list[Float[Tensor, "batch heads rows tokens"]] = []

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        if len(self.outputs) == len(self._calls):
            raise ModelError("the blocks made more attention calls for one token than for all.")
        context = self._calls[len(self.outputs)]
        batch, heads = context.key.shape[:2]
        query, key, value = (_rows(t, batch) for t in (call.query, call.key, call.value))
        readout = slice(self._readout, self._readout + 1)
        scaled = query * context.scale
        scores = scaled @ context.key.detach().transpose(-2, -1)
        own = (scaled * key).sum(-1, keepdim=True).to(scores.dtype)
        is_own = torch.arange(scores.shape[-1], device=scores.device) == self._readout
        scores = wide(torch.where(is_own, own, scores))
        attention = (scores + context.bias(readout, scores)).softmax(-1)
        self.attention.append(attention)
        attention, values = attention.to(value.dtype), context.value.detach()
        output = attention @ values + attention[..., readout] * (value - values[:, :, readout])
        self.outputs.append(output)
        return output.transpose(1, 2).reshape(-1, heads, 1, output.shape[-1])


def _rows(tensor: Tensor, batch: int) -> Float[Tensor, "batch heads rows width"]:
    """(batch · rows, heads, 1, width) to (batch, heads, rows, width)."""
    if tensor.shape[2] != 1:
        raise ModelError(
            "a block added tokens of its own, so one token cannot run through it alone."
        )
    return tensor.reshape(batch, -1, tensor.shape[1], tensor.shape[3]).transpose(1, 2)
