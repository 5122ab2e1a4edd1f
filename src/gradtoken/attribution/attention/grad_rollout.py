"""Gradient rollout: attention rollout of gradient-weighted attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.errors import MethodError
from gradtoken.targets import Targets
from gradtoken.trace.graph import forward_with_graph
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class GradientRollout(GradientMethod):
    """The readout's row of the product over blocks of rownorm(E_h[A * G]+ + I).

    A is a block's attention, G the gradient of the score by it, E_h the mean over heads. Where the
    head averages tokens, the mean of their rows; where it reads them by attention, that attention's
    E_h[A * G]+ in place of the row.

    Args:
        discard: of each block's matrix, the fraction of smallest entries that is set to 0 before
            the identity is added, 0 to below 1.
    """

    name: ClassVar[str] = "grad-rollout"
    summary: ClassVar[str] = "attention rollout with attention weighted by its gradient"
    source: ClassVar[str] = "Gildenblat, vit-explain, 2020; after Abnar and Zuidema, ACL 2020"

    discard: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.discard, (int, float)) and 0 <= self.discard < 1):
            raise MethodError(
                f"grad-rollout's discard is {self.discard!r}; it must be from 0 to below 1."
            )

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        with forward_with_graph(trace, targets, libra=self.libra) as graph:
            weights = [w.detach() for w in graph.steps]

            def combine(grads: list[Tensor]) -> Float[Tensor, "batch tokens"]:
                steps = [
                    self._kept((g * a).mean(1).clamp_min(0))
                    for g, a in zip(grads, weights, strict=True)
                ]
                row = graph.head_weights(steps[-1] if graph.tail else None)[:, None]
                for step in reversed(steps[: len(graph.attention)]):
                    mixing = step + torch.eye(step.shape[-1], device=step.device, dtype=step.dtype)
                    row = row @ (mixing / mixing.sum(-1, keepdim=True))
                return row[:, 0]

            return graph.maps(graph.steps, combine)

    def _kept(self, matrix: Float[Tensor, "batch rows tokens"]) -> Tensor:
        """A matrix without its smallest entries."""
        flat = matrix.flatten(1)
        idle = flat.topk(int(flat.shape[1] * self.discard), dim=1, largest=False).indices
        return flat.scatter(1, idle, 0).view_as(matrix)
