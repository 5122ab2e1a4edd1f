"""Attention rollout: attention multiplied through all blocks, whatever the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import Method
from gradtoken.targets import Targets
from gradtoken.trace import Trace


@dataclass(frozen=True, kw_only=True)
class AttentionRollout(Method):
    """Row r of the product over blocks of rownorm(mean over heads of A + I)."""

    name: ClassVar[str] = "rollout"
    summary: ClassVar[str] = "attention multiplied through all blocks, same for every class"
    source: ClassVar[str] = "Abnar and Zuidema, ACL 2020"
    class_aware: ClassVar[bool] = False

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        layout = trace.model.layout
        row: Tensor | None = None
        for call in reversed(trace.calls):
            mixing = call.rows(slice(None)).mean(dim=1)
            mixing = mixing + torch.eye(mixing.shape[-1], device=mixing.device, dtype=mixing.dtype)
            mixing = mixing / mixing.sum(-1, keepdim=True)
            row = mixing[:, layout.readout : layout.readout + 1] if row is None else row @ mixing
        assert row is not None
        return row[..., layout.prefix :].expand(-1, targets.count, -1)
