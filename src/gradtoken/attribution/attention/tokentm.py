"""TokenTM: attention weighted by how blocks transform the tokens themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.targets import Targets
from gradtoken.trace.graph import forward_with_graph
from gradtoken.trace.sublayers import sublayers
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class TokenTransformation(GradientMethod):
    """The readout's row of C^L, C^l = (I + W_mlp)(I + (E_h[A] W_att) * E_h[G+]) C^{l-1}.

    C^0 = diag(|T_i|) with the tokens entering the first block. W = diag(|T'_i| / |T_i| * n_i)
    measures how a sublayer makes tokens T to T': n is the softmax over tokens of cos(T_i, T'_i).
    For attention T' is what token i's own value writes (W_o v_i), for the MLP what it writes. G is
    the gradient of the score by the attention A. Where the head averages tokens, the mean of their
    rows; where it reads them by attention, E_h[A] * E_h[G+] of that attention in place of the row.
    """

    name: ClassVar[str] = "tokentm"
    summary: ClassVar[str] = "gradient-weighted attention with token transformation measured"
    source: ClassVar[str] = "Wu et al., Token Transformation Matters, CVPR 2024"

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        with forward_with_graph(trace, targets, libra=self.libra) as graph:
            parts = sublayers(trace, [t.detach() for t in graph.entering])
            mean = [a.detach().mean(1) for a in graph.steps]
            by_attention = [
                a * _change(p.entering, p.written)[:, None]
                for a, p in zip(mean[: len(parts)], parts, strict=True)
            ]
            by_mlp = [_change(p.middle, p.leaving - p.middle) for p in parts]

            def combine(grads: list[Tensor]) -> Float[Tensor, "batch tokens"]:
                positive = [g.clamp_min(0).mean(1) for g in grads]
                row = graph.head_weights(mean[-1] * positive[-1] if graph.tail else None)[:, None]
                for index in reversed(range(len(parts))):
                    row = row * (1 + by_mlp[index][:, None])
                    row = row + row @ (by_attention[index] * positive[index])
                return row[:, 0] * parts[0].entering.norm(dim=-1)

            return graph.maps(graph.steps, combine)


def _change(
    before: Float[Tensor, "batch tokens dim"], after: Float[Tensor, "batch tokens dim"]
) -> Float[Tensor, "batch tokens"]:
    """The diagonal of W: how much longer tokens become, and how far they keep their direction."""
    kept = torch.cosine_similarity(before, after, dim=-1).softmax(-1)
    return after.norm(dim=-1) / before.norm(dim=-1) * kept
