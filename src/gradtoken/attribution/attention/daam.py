"""DAAM: what each block's attention writes into the readout, by its positive gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.attribution.options import check_flag
from gradtoken.images.patch_grid import pick
from gradtoken.precision import full_precision
from gradtoken.targets import Targets
from gradtoken.trace.gradients import readouts
from gradtoken.trace.readout import Readout
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class DynamicAccumulatedAttention(GradientMethod):
    """R_i = sum over blocks of scaled (sum_hd (dy/do_hd)+ a_hi v_hid)+.

    o_h = sum_i a_hi v_hi is what head h of a block writes into the readout's token, by that
    token's attention a to the values v. Where there are several such tokens (a distillation token,
    averaged tokens), the sum over them; where the class is read by attention, that counts as one
    more block.

    Args:
        scale: scale each block's map to 0..1 over the patches, as the published code does.
    """

    name: ClassVar[str] = "daam"
    summary: ClassVar[str] = "attention times value times positive gradient, block by block"
    source: ClassVar[str] = "Liao, Gao, Zhang, Pattern Recognition 165:111607, 2025"

    scale: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag(self, "scale")

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        trace.global_calls()
        found = readouts(trace, targets, gradient="full", libra=self.libra)
        averaged = trace.model.anatomy.pool is not None
        tail = found.tail[:-1] if averaged else found.tail
        steps = [step for block in found.blocks for step in block] + tail
        return torch.stack([self._block(step, trace.spatial) for step in steps]).sum(0)

    def _block(self, step: Readout, count: int) -> Float[Tensor, "batch targets patches"]:
        with full_precision(step.gradient):
            relation = torch.einsum("bhkrd,bhnd->bhkrn", step.gradient.clamp_min(0), step.value)
            relevance = torch.einsum("bhrn,bhkrn->bkn", step.attention, relation)
        patches = relevance[..., -count:]
        if step.order is not None:
            patches = pick(relevance, step.order, relevance.shape[-1])
        return _scaled(patches.clamp_min(0)) if self.scale else patches.clamp_min(0)


def _scaled(maps: Float[Tensor, "batch targets patches"]) -> Tensor:
    low, high = maps.amin(-1, keepdim=True), maps.amax(-1, keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)
