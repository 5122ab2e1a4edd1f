"""Transformer Attribution: rollout of relevance times gradient, by layer-wise relevance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import OWN_RULES, Method
from gradtoken.attribution.lrp.propagation import attention_relevance
from gradtoken.attribution.widened import widening
from gradtoken.errors import MethodError
from gradtoken.targets import Targets
from gradtoken.trace.graph import forward_with_graph
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class TransformerAttribution(Method):
    """The readout's row of the product over blocks of I + E_h[(G * R_A)+].

    R_A is the relevance of a block's attention by layer-wise propagation from the score (rules in
    `gradtoken.attribution.lrp.rules`), G the gradient of the score by it, E_h the mean over heads.
    Relevance is propagated within each image, so a batch equals its images processed individually.
    Two readout tokens: the mean of their rows.

    Args:
        start: the lowest block (0-based) of the product; the authors' segmentation takes 1.
    """

    name: ClassVar[str] = "transformer-attribution"
    summary: ClassVar[str] = "rollout of layer-wise relevance times gradient of attention"
    source: ClassVar[str] = "Chefer, Gur, Wolf, CVPR 2021, eqs. 13 and 14"
    no_libra: ClassVar[str] = OWN_RULES

    start: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.start, int) or isinstance(self.start, bool) or self.start < 0:
            raise MethodError(
                f"transformer-attribution's start is {self.start!r}; it must be a block's index."
            )

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        relevance = attention_relevance(trace, targets)
        if self.start >= trace.depth:
            raise MethodError(
                f"transformer-attribution's start is {self.start}, but {trace.model.spec} has "
                f"{trace.depth} blocks."
            )
        with (
            widening(trace.model, torch.float64) as widened,
            widened,
            forward_with_graph(trace, targets) as graph,
        ):
            by_target = iter(relevance)

            def combine(grads: list[Tensor]) -> Float[Tensor, "batch tokens"]:
                pairs = list(zip(grads, next(by_target), strict=True))[self.start :]
                row = graph.head_weights(None)[:, None]
                for gradient, relevant in reversed(pairs):
                    row = row + row @ (gradient * relevant).clamp_min(0).mean(1)
                return row[:, 0]

            return graph.maps(graph.attention, combine)
