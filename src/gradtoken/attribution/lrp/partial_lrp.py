"""Partial LRP: layer-wise relevance of the last block's attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import OWN_RULES, Method
from gradtoken.attribution.lrp.propagation import attention_relevance
from gradtoken.targets import Targets
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class PartialLRP(Method):
    """E_h[R_A+] in the readout's row of the last block, R_A its attention's relevance.

    Two readout tokens: the mean of their rows.
    """

    name: ClassVar[str] = "partial-lrp"
    summary: ClassVar[str] = "layer-wise relevance of the last block's attention"
    source: ClassVar[str] = "Voita et al., ACL 2019; as a baseline in Chefer et al., CVPR 2021"
    no_libra: ClassVar[str] = OWN_RULES

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        last_block = [blocks[-1] for blocks in attention_relevance(trace, targets)]
        rows = [r.clamp_min(0)[:, :, trace.rows()].mean(dim=(1, 2)) for r in last_block]
        return trace.patch_grid.pick(torch.stack(rows, dim=1))
