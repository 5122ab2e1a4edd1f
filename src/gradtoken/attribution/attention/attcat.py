"""AttCAT: gradient times token in every block, weighted by the attention a token receives."""

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
class AttCAT(GradientMethod):
    """R_i = sum over blocks of alpha_i * sum_d T_id dy/dT_id.

    T are the tokens entering a block and alpha_i the attention that token i receives in it, the
    mean over heads and queries.

    Args:
        attention: False leaves alpha out, which is gradient x token summed over blocks (CAT).
    """

    name: ClassVar[str] = "attcat"
    summary: ClassVar[str] = "gradient x token in every block, weighted by received attention"
    source: ClassVar[str] = "Qiang et al., NeurIPS 2022, eqs. 6 and 8"

    attention: bool = True

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        with forward_with_graph(trace, targets, libra=self.libra) as graph:
            tokens = [t.detach() for t in graph.entering]
            received = [a.detach().mean(dim=(1, 2)) for a in graph.attention]

            def combine(grads: list[Tensor]) -> Float[Tensor, "batch tokens"]:
                shares = [(t * g).sum(-1) for t, g in zip(tokens, grads, strict=True)]
                if self.attention:
                    shares = [s * a for s, a in zip(shares, received, strict=True)]
                return torch.stack(shares).sum(0)

            return graph.maps(graph.entering, combine)
