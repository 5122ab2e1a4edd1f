"""One attention call of a forward: what went in and what came out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.precision import full_precision, wide

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

    def images(self, images: slice) -> AttentionCall:
        """The same call of some of the images."""
        mask = self.mask
        if mask is not None and mask.ndim == 4 and mask.shape[0] == len(self.key):
            mask = mask[images]
        return replace(
            self,
            query=self.query[images],
            key=self.key[images],
            value=self.value[images],
            output=None if self.output is None else self.output[images],
            mask=mask,
        )

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


def attention_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionCall:
    """A call of `scaled_dot_product_attention`, whose parameters these are.

    Raises:
        ModelError: if it is causal, or its tensors have no dimension of heads.
    """
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
