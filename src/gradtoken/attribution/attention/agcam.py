"""Attention-guided CAM: positive gradients of attention, gated by the attention scores."""

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
class AGCAM(GradientMethod):
    """R_i = sum over blocks and heads of G[r, i]+ * sigmoid(s[r, i]).

    s is a block's attention before the softmax, G the gradient of the score by the attention after
    it, r the readout's row (the mean of its rows where the head averages tokens); attention by
    which the head reads them counts as one more block.
    """

    name: ClassVar[str] = "agcam"
    summary: ClassVar[str] = "positive gradient of attention gated by sigmoid attention scores"
    source: ClassVar[str] = "Leem and Seo, AAAI 2024"

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        with forward_with_graph(trace, targets, libra=self.libra) as graph:
            gates = [call.scores(slice(None)).sigmoid() for call in trace.calls]

            def combine(grads: list[Tensor]) -> Float[Tensor, "batch tokens"]:
                rows = [
                    graph.readout_row(gate * g.clamp_min(0), step=step) * gate.shape[1]
                    for step, (gate, g) in enumerate(zip(gates, grads, strict=True))
                ]
                return torch.stack(rows).sum(0)

            return graph.maps(graph.steps, combine)
