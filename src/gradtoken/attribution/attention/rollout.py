"""Attention rollout: attention multiplied through all blocks, independent of the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import NO_GRADIENT, Method
from gradtoken.precision import wide
from gradtoken.tap.alignment import along_sequence
from gradtoken.targets import Targets
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class AttentionRollout(Method):
    """Row r of the product over blocks of rownorm(mean over heads of A + I).

    Where the head averages tokens, the mean of their rows; where it reads them by attention, the
    rows weighted by that attention.
    """

    name: ClassVar[str] = "rollout"
    summary: ClassVar[str] = "attention multiplied through all blocks, same for every class"
    source: ClassVar[str] = "Abnar and Zuidema, ACL 2020"
    no_libra: ClassVar[str] = NO_GRADIENT
    class_aware: ClassVar[bool] = False

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        calls = trace.global_calls()
        row = self._head_weights(trace)
        for call in reversed(calls):
            mixing = call.rows(slice(None)).mean(dim=1)
            mixing = mixing + torch.eye(mixing.shape[-1], device=mixing.device, dtype=mixing.dtype)
            row = row @ (mixing / mixing.sum(-1, keepdim=True))
        return trace.patch_grid.pick(row).expand(-1, targets.count, -1)

    def _head_weights(self, trace: Trace) -> Float[Tensor, "batch 1 tokens"]:
        """The head's weights of the last block's tokens: a single one, their mean, or attention."""
        if trace.tail_calls:
            row = trace.tail_calls[-1].rows(slice(None)).mean(dim=(1, 2))[:, None]
            return along_sequence(row, trace.tail_keys())
        key = trace.calls[-1].key
        row = wide(key).new_zeros(len(key), 1, key.shape[-2])
        rows = trace.rows()
        row[..., rows] = 1 / len(rows)
        return row
