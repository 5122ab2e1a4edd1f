"""Grad-SAM: attention times its positive gradient, averaged over all blocks and heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.targets import Targets
from gradtoken.trace.graph import forward_with_graph
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class GradSAM(GradientMethod):
    """R_i = mean over blocks and heads of A[r, i] * G[r, i]+.

    A is a block's attention, G the gradient of the score by it, r the readout's row (the mean of
    its rows where the head averages tokens); attention by which the head reads them counts as one
    more block.
    """

    name: ClassVar[str] = "grad-sam"
    summary: ClassVar[str] = "attention times its positive gradient, mean over blocks and heads"
    source: ClassVar[str] = "Barkan et al., CIKM 2021, eq. 3, in the readout's row"

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        with forward_with_graph(trace, targets, libra=self.libra) as graph:
            weights = [w.detach() for w in graph.steps]

            def combine(grads: list[Tensor]) -> Float[Tensor, "batch tokens"]:
                rows = [
                    graph.readout_row(a * g.clamp_min(0), step=step)
                    for step, (a, g) in enumerate(zip(weights, grads, strict=True))
                ]
                return torch.stack(rows).mean(0)

            return graph.maps(graph.steps, combine)
