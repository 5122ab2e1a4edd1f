"""GMAR: attention rollout whose heads are weighted by the size of their gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.errors import MethodError
from gradtoken.targets import Targets
from gradtoken.trace.graph import forward_with_graph
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class GMAR(GradientMethod):
    """The readout's row of the product over blocks of rownorm(sum_h w_h A_h + I).

    w_h = |G_h| / sum_h' |G_h'|, |G_h| the norm of all entries of the gradient of the score by head
    h's attention A_h. Where the model's head averages tokens, the mean of their rows; where it
    reads them by attention, that attention's sum_h w_h A_h in place of the row.

    Args:
        norm: "l1", the sum of absolute entries, or "l2", the root of the sum of squares.
    """

    name: ClassVar[str] = "gmar"
    summary: ClassVar[str] = "attention rollout with heads weighted by the norm of their gradient"
    source: ClassVar[str] = "Jo, Jang, Park, GMAR, ICIP 2025"

    norm: Literal["l1", "l2"] = "l1"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm not in ("l1", "l2"):
            raise MethodError(f"gmar's norm is {self.norm!r}; it can be 'l1' or 'l2'.")

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        with forward_with_graph(trace, targets, libra=self.libra) as graph:
            attention = [a.detach() for a in graph.steps]

            def combine(grads: list[Tensor]) -> Float[Tensor, "batch tokens"]:
                mixing = [self._weighted(a, g) for a, g in zip(attention, grads, strict=True)]
                row = graph.head_weights(mixing[-1] if graph.tail else None)[:, None]
                for matrix in reversed(mixing[: len(graph.attention)]):
                    total = matrix + torch.eye(
                        matrix.shape[-1], device=matrix.device, dtype=matrix.dtype
                    )
                    row = row @ (total / total.sum(-1, keepdim=True))
                return row[:, 0]

            return graph.maps(graph.steps, combine)

    def _weighted(
        self, attention: Float[Tensor, "batch heads rows tokens"], gradient: Tensor
    ) -> Float[Tensor, "batch rows tokens"]:
        """The heads' attention, each by its weight."""
        size = gradient.flatten(2).norm(p=1 if self.norm == "l1" else 2, dim=-1)
        total = size.sum(-1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
        return torch.einsum("bh,bhrn->brn", size / total, attention)
