"""Transition attention maps: attention followed down the blocks, times an integrated gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.attention.integrated_attention import integrated_attention
from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.attribution.options import check_whole
from gradtoken.errors import MethodError
from gradtoken.targets import Targets
from gradtoken.trace.graph import forward_with_graph
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class TransitionAttention(GradientMethod):
    """s <- s + s E_h[A] from s = the readout's attention in the last block, down to block `start`.

    Then times the positive integrated gradient of the attention by which the class is read, as in
    `integrated_attention`. Where the head averages tokens, the mean of their rows; where it reads
    them by attention, s starts with that.

    Args:
        start: the lowest block (0-based); None is a third of the depth, which for 12 blocks is the
            published 4.
        steps: points of the integral.
    """

    name: ClassVar[str] = "tam"
    summary: ClassVar[str] = "attention followed down the blocks, times integrated gradient"
    source: ClassVar[str] = "Yuan et al., Explaining Information Flow Inside ViTs, 2021"
    trial: ClassVar[dict[str, Any]] = {"steps": 2}

    start: int | None = None
    steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "steps")
        whole = isinstance(self.start, int) and not isinstance(self.start, bool)
        if self.start is not None and not (whole and self.start >= 0):
            raise MethodError(f"tam's start is {self.start!r}; it must be a block's index or None.")

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        trace.global_calls()
        start = trace.depth // 3 if self.start is None else self.start
        if start >= trace.depth:
            raise MethodError(
                f"tam's start is {start}, but {trace.model.spec} has {trace.depth} blocks."
            )
        with forward_with_graph(trace, targets, libra=self.libra) as graph:
            mixing = [a.detach().mean(1) for a in graph.attention]
            state = graph.readout_row(graph.steps[-1].detach())[:, None]
            lowest = mixing[start:] if graph.tail else mixing[start:-1]
            for matrix in reversed(lowest):
                state = state + state @ matrix
        gradient = integrated_attention(trace, targets, self.steps, libra=self.libra)
        return trace.patch_grid.pick(state) * gradient
