"""The attention of patches to patches, averaged while a forward runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.tap.attention_call import AttentionCall, Rows

_ELEMENTS = 1 << 23
"""Attention weights held at once while a mean over heads is taken."""


class PatchAttention:
    """The attention of patches to patches, a mean over the heads of some blocks.

    It is summed call by call and image by image, so that no more than the heads' attention of one
    call of few images is in memory.

    Args:
        patches: their positions in the sequence, in reading order.
        tokens: T, the length of the sequence.
        blocks: indices of the blocks.
    """

    def __init__(self, patches: Sequence[int], tokens: int, blocks: Sequence[int]) -> None:
        self.blocks = tuple(blocks)
        start, count = patches[0], len(patches)
        in_order = tuple(patches) == tuple(range(start, start + count))
        self._patches: Rows = slice(start, start + count) if in_order else list(patches)
        self._count = count
        self._tokens = tokens
        self._sum: Float[Tensor, "batch patches patches"] | None = None
        self._calls: Counter[int] = Counter()
        self._global = True

    def add(self, call: AttentionCall, block: int) -> None:
        """Take a block's attention call into account."""
        if block not in self.blocks:
            return
        self._calls[block] += 1
        self._global &= {call.query.shape[-2], call.key.shape[-2]} == {self._tokens}
        if not self._global:
            return
        mean = self._mean_over_heads(call)
        self._sum = mean if self._sum is None else self._sum.add_(mean)

    def mean(self) -> Float[Tensor, "batch patches patches"] | None:
        """The mean; None unless each block made one call, of all tokens to all."""
        once = all(self._calls[block] == 1 for block in self.blocks)
        if self._sum is None or not once or not self._global:
            return None
        return self._sum / len(self.blocks)

    @torch.no_grad()
    def _mean_over_heads(self, call: AttentionCall) -> Float[Tensor, "batch patches patches"]:
        images, heads = call.key.shape[:2]
        step = max(1, _ELEMENTS // (heads * self._count * self._tokens))
        parts = [
            call.images(slice(start, start + step))
            .rows(self._patches)
            .mean(dim=1)[..., self._patches]
            for start in range(0, images, step)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
