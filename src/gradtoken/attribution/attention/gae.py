"""Generic attention explainability: gradient-weighted attention accumulated through the blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.targets import Targets
from gradtoken.trace.graph import forward_with_graph
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class GenericAttention(GradientMethod):
    """R <- R + E_h[(G * A)+] R from R = I, block by block; the readout's row of R.

    A is a block's attention, G the gradient of the score by it, E_h the mean over heads, taken
    after the rectification. Where the head averages tokens, the mean of their rows; where it reads
    them by attention, that attention is treated likewise and comes last.
    """

    name: ClassVar[str] = "gae"
    summary: ClassVar[str] = "gradient-weighted attention accumulated through all blocks"
    source: ClassVar[str] = "Chefer, Gur, Wolf, ICCV 2021, eqs. 5 and 6"

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        with forward_with_graph(trace, targets, libra=self.libra) as graph:
            weights = [w.detach() for w in graph.steps]

            def combine(grads: list[Tensor]) -> Float[Tensor, "batch tokens"]:
                steps = [(g * a).clamp_min(0).mean(1) for g, a in zip(grads, weights, strict=True)]
                row = graph.head_weights(steps[-1] if graph.tail else None)[:, None]
                for step in reversed(steps[: len(graph.attention)]):
                    row = row + row @ step
                return row[:, 0]

            return graph.maps(graph.steps, combine)
