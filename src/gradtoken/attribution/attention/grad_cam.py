"""Grad-CAM on the tokens or on the attention of a Vision Transformer's last block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.errors import MethodError
from gradtoken.targets import Targets
from gradtoken.trace.graph import forward_with_graph
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class GradCAM(GradientMethod):
    """Features of the last block weighted by their mean gradient, positive part.

    Args:
        features: "tokens": (sum_d mean_i(dy/dT_id) T_id)+ with T the spatial tokens as normalised
            before the last block's attention. "attention": (E_h[A[r, i] * mean_k G[r, k]])+ with A
            the attention by which the class is read, G the gradient by it, r the readout's row
            (the mean of its rows where the head averages tokens).
    """

    name: ClassVar[str] = "grad-cam"
    summary: ClassVar[str] = "last block's tokens weighted by their mean gradient"
    source: ClassVar[str] = (
        "Selvaraju et al., ICCV 2017; on tokens as in pytorch-grad-cam, on attention as in "
        "Chefer et al., CVPR 2021"
    )

    features: Literal["tokens", "attention"] = "tokens"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features not in ("tokens", "attention"):
            raise MethodError(
                f"grad-cam's features is {self.features!r}; it can be 'tokens' or 'attention'."
            )

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        with forward_with_graph(trace, targets, libra=self.libra) as graph:
            if self.features == "attention":
                weights = graph.steps[-1].detach()

                def combine(grads: list[Tensor]) -> Float[Tensor, "batch tokens"]:
                    product = weights * grads[0].mean(-1, keepdim=True)
                    return graph.readout_row(product).clamp_min(0)

                return graph.maps([graph.steps[-1]], combine)
            tokens = graph.norms.first()

            def weighted(grads: list[Tensor]) -> Float[Tensor, "batch tokens"]:
                channels = trace.patch_grid.pick(grads[0], 1).mean(1, keepdim=True)
                return (tokens.detach() * channels).sum(-1).clamp_min(0)

            return graph.maps([tokens], weighted)
