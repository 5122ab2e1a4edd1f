"""GradToken without gradtoken: attention written out in place of torch's, and plain autograd.

`F.scaled_dot_product_attention` is swapped for its formula, which keeps every attention matrix, so
nothing of the tap, the stream or the family files takes part. Since <gamma, v_i> = dy/da_i, the
first-order relevance of a block is A * dA in the rows of the readout, and the average of tokens
z_i is a step with equal weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class AttentionNodes:
    """Attention matrices (B, H, rows, tokens) of one forward, in order, with gradients."""

    matrices: list[Tensor] = field(default_factory=list)


@contextmanager
def eager_attention() -> Iterator[AttentionNodes]:
    """Every fused attention call computed by its formula, its matrix kept."""
    kept = AttentionNodes()

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **_: Any,
    ) -> Tensor:
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        scores = query @ key.transpose(-2, -1) * scale
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        matrix = scores.softmax(-1)
        kept.matrices.append(matrix)
        return matrix @ value

    multi_head = F.multi_head_attention_forward

    def without_weights(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        return multi_head(*args, **{**kwargs, "need_weights": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", attention)
        patch.setattr(F, "multi_head_attention_forward", without_weights)
        yield kept


def gradient_times_attention(
    forward: Callable[[Tensor], Tensor], image: Tensor, label: int, beta: float
) -> list[Tensor]:
    """For each attention call, sum over heads of a^beta * dy/da: (rows, tokens)."""
    with eager_attention() as kept, torch.enable_grad():
        output = forward(image.clone().requires_grad_())
        actual = torch.autograd.grad(output[0, label], kept.matrices, allow_unused=True)
    return [
        torch.zeros_like(a[0, 0]) if g is None else (a.detach() ** beta * g)[0].sum(0)
        for a, g in zip(kept.matrices, actual, strict=True)
    ]
