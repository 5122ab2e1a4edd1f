"""IIA: gradient rollout integrated over the input and over the last block's attention.

The points of the integrals are those of the authors' code, both ends included.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.attribution.options import check_whole
from gradtoken.tap.recorder import EagerAttention
from gradtoken.targets import Targets
from gradtoken.trace.graph import ForwardGraph, forward_with_graph
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class IteratedIntegratedAttributions(GradientMethod):
    """The readout's row of the product over blocks of rownorm(E[(A * G)+] + I).

    E is the mean over heads and over all pairs of points s and t of 0, 1/m, ..., 1: the model runs
    on the input s x (in normalised space, where zero is the grey of the mean), and its last block's
    attention is replaced by t A^L, a constant. A is a block's attention in that forward, G the
    gradient of the score by it. Where the head averages tokens, the mean of their rows; where it
    reads them by attention, that attention is treated likewise and comes last.

    Args:
        steps: m, intervals of each of the two integrals; it takes (m + 1)^2 forwards with as many
            backward passes for each target.
    """

    name: ClassVar[str] = "iia"
    summary: ClassVar[str] = "gradient rollout integrated over the input and the last attention"
    source: ClassVar[str] = "Barkan et al., Iterated Integrated Attributions, ICCV 2023"
    slow: ClassVar[bool] = True
    trial: ClassVar[dict[str, Any]] = {"steps": 1}

    steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "steps")

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        points = [step / self.steps for step in range(self.steps + 1)]
        totals: list[list[Tensor]] = []
        for scale, share in product(points, points):
            copies = trace.model.writes_in_place
            tap = _LastScaled(trace.depth - 1, share, leaves=self.libra, copies=copies)
            images = trace.images * scale
            with forward_with_graph(
                trace, targets, images=images, tap=tap, libra=self.libra
            ) as graph:
                products = _products(graph)
            totals = _sum(totals, products) if totals else products
        maps = [_rollout(graph, [m / len(points) ** 2 for m in total]) for total in totals]
        return trace.patch_grid.pick(torch.stack(maps, dim=1))


class _LastScaled(EagerAttention):
    """Eager attention, of which one block's is replaced by a multiple of it, as a constant."""

    def __init__(self, block: int, share: float, *, leaves: bool, copies: bool) -> None:
        super().__init__(leaves=leaves, copies=copies)
        self._block = block
        self._share = share

    def node(self, weights: Tensor) -> Tensor:
        if self.place != self._block:
            return super().node(weights)
        return (self._share * weights).detach().requires_grad_()


def _products(graph: ForwardGraph) -> list[list[Float[Tensor, "batch queries keys"]]]:
    """The mean over heads of (A * G)+ of each attention step, for each target."""
    weights = [w.detach() for w in graph.steps]
    return [
        [(g * a).clamp_min(0).mean(1) for g, a in zip(grads, weights, strict=True)]
        for grads in graph.target_gradients(graph.steps)
    ]


def _sum(some: list[list[Tensor]], others: list[list[Tensor]]) -> list[list[Tensor]]:
    return [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(some, others, strict=True)]


def _rollout(graph: ForwardGraph, steps: list[Tensor]) -> Float[Tensor, "batch tokens"]:
    """The readout's row of the product of each block's matrix with the identity added."""
    row = graph.head_weights(steps[-1] if graph.tail else None)[:, None]
    for step in reversed(steps[: len(graph.attention)]):
        mixing = step + torch.eye(step.shape[-1], device=step.device, dtype=step.dtype)
        row = row @ (mixing / mixing.sum(-1, keepdim=True))
    return row[:, 0]
