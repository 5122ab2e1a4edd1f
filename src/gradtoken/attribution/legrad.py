"""LeGrad: what each block's attention could still do for a class, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import Method
from gradtoken.attribution.layers import Layers, listed, select_layers
from gradtoken.targets import Targets
from gradtoken.trace import Trace


@dataclass(frozen=True, kw_only=True)
class LeGrad(Method):
    """R_i = sum over blocks of the mean over heads and queries of (ds^l/dA^l)+ [., i].

    s^l is the score that the model's own head gives to the mean of all tokens leaving block l, and
    A^l that block's attention, on which s^l depends through that block alone.

    Args:
        layers: "all", "half" (the upper one), "last", the number of last blocks (2 is what the
            published wrapper uses), or a list of block indices.
    """

    name: ClassVar[str] = "legrad"
    summary: ClassVar[str] = "positive gradient of each block's score by its attention"
    source: ClassVar[str] = "Bousselham et al., LeGrad, 2024"

    layers: Layers = "all"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", listed(self.layers))

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        trace.global_calls(self.name)
        chosen = select_layers(self.layers, trace.depth)
        maps = []
        with trace.blocks_alone(chosen) as (weights, leaving):
            means = [t.mean(1, keepdim=True).expand_as(t) for t in leaving]
            scores = trace.scores_after(means, targets, self.name)
            for k in range(targets.count):
                grads = torch.autograd.grad(scores[:, :, k].sum(), weights, retain_graph=True)
                each = [grad.clamp_min(0).mean(dim=(1, 2)) for grad in grads]
                maps.append(trace.patch_grid.pick(torch.stack(each).sum(0)))
        return torch.stack(maps, dim=1)
