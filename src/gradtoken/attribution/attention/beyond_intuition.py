"""Beyond Intuition: attention perception through the blocks, times an integrated gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.attention.integrated_attention import integrated_attention
from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.attribution.options import check_whole
from gradtoken.errors import MethodError
from gradtoken.targets import Targets
from gradtoken.trace.graph import forward_with_graph
from gradtoken.trace.sublayers import sublayers
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class BeyondIntuition(GradientMethod):
    """The readout's row of P, P <- P + B P from P = I block by block, times an integrated gradient.

    The gradient is that of `integrated_attention`. Where the head averages tokens, the mean of
    their rows of P; where it reads them by attention, the mean over heads of that attention times
    P.

    Args:
        variant: what B is. "head": sum_h I_h A_h, with the heads' importance I_h in proportion to
            the mean of |A_h^T G_h| (sum over heads 1). "token": E_h[A] diag(|W_o v_i| / |z_i|),
            with W_o v_i what token i's value writes and z_i the token entering the block.
        steps: points of the integral.
    """

    name: ClassVar[str] = "beyond-intuition"
    summary: ClassVar[str] = "attention perception through the blocks, times integrated gradient"
    source: ClassVar[str] = "Chen et al., Beyond Intuition, NeurIPS 2022"
    trial: ClassVar[dict[str, Any]] = {"steps": 2}

    variant: Literal["head", "token"] = "head"
    steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "steps")
        if self.variant not in ("head", "token"):
            raise MethodError(
                f"beyond-intuition's variant is {self.variant!r}; it can be 'head' or 'token'."
            )

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        with forward_with_graph(trace, targets, libra=self.libra) as graph:
            weights = [a.detach() for a in graph.attention]
            start = graph.head_weights(graph.tail[-1].detach().mean(1) if graph.tail else None)[
                :, None
            ]
            if self.variant == "head":

                def combine(grads: list[Tensor]) -> Float[Tensor, "batch tokens"]:
                    mixing = [_by_head(a, g) for a, g in zip(weights, grads, strict=True)]
                    return _perceived(start, mixing)

                perceived = graph.maps(graph.attention, combine)
            else:
                entering = [t.detach() for t in graph.entering]
        if self.variant == "token":
            mixing = [
                a.mean(1) * (part.written.norm(dim=-1) / part.entering.norm(dim=-1))[:, None]
                for a, part in zip(weights, sublayers(trace, entering), strict=True)
            ]
            perceived = trace.patch_grid.pick(_perceived(start, mixing))[:, None]
        return perceived * integrated_attention(trace, targets, self.steps, libra=self.libra)


def _by_head(
    attention: Float[Tensor, "batch heads tokens tokens"], gradient: Tensor
) -> Float[Tensor, "batch tokens tokens"]:
    """Attention of all heads, each by its importance."""
    importance = (attention.transpose(-2, -1) @ gradient).abs().mean(dim=(-2, -1))
    importance = importance / importance.sum(-1, keepdim=True).clamp_min(
        torch.finfo(importance.dtype).tiny
    )
    return (attention * importance[..., None, None]).sum(1)


def _perceived(row: Float[Tensor, "batch 1 tokens"], mixing: list[Tensor]) -> Tensor:
    """A row of P (B, tokens): multiplied on from the last block to the first."""
    for matrix in reversed(mixing):
        row = row + row @ matrix
    return row[:, 0]
