"""CDAM: gradient times token before the last block's attention, signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.attribution.options import check_number, check_seed, check_whole
from gradtoken.errors import MethodError
from gradtoken.targets import Targets
from gradtoken.trace.graph import forward_with_graph
from gradtoken.trace.trace import Trace

Change: TypeAlias = Callable[[Float[Tensor, "batch tokens dim"]], Float[Tensor, "batch tokens dim"]]


@dataclass(frozen=True, kw_only=True)
class CDAM(GradientMethod):
    """S_i = sum_d T_id dy/dT_id, T the tokens as normalised before the last block's attention.

    Args:
        gradient: "plain"; "smooth": the mean of S at T + noise; "integrated": the gradient
            averaged over s T for s = 1/m to 1.
        steps: samples of the noise, or points of the integral.
        noise: standard deviation of the noise, relative to that of T.
        seed: of the noise.
    """

    name: ClassVar[str] = "cdam"
    summary: ClassVar[str] = "gradient x token before the last block's attention, signed"
    source: ClassVar[str] = "Brocki, Binda, Chung, Class-Discriminative Attention Maps, 2023"

    gradient: Literal["plain", "smooth", "integrated"] = "plain"
    steps: int = 16
    noise: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "steps")
        if self.gradient not in ("plain", "smooth", "integrated"):
            raise MethodError(
                f"cdam's gradient is {self.gradient!r}; it can be 'plain', 'smooth' or "
                "'integrated'."
            )
        check_number(self, "noise")
        check_seed(self)

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        if self.gradient == "plain":
            return self._times_gradient(trace, targets, None, 1)
        generator = torch.Generator().manual_seed(self.seed)
        total: Tensor | None = None
        for step in range(1, self.steps + 1):
            fraction = step / self.steps if self.gradient == "integrated" else 1
            change = self._change(fraction, generator)
            maps = self._times_gradient(trace, targets, change, fraction)
            total = maps if total is None else total + maps
        assert total is not None
        return total / self.steps

    def _times_gradient(
        self, trace: Trace, targets: Targets, change: Change | None, fraction: float
    ) -> Float[Tensor, "batch targets patches"]:
        """Gradient times token where the tokens are changed; `fraction` is the scale they keep."""
        with forward_with_graph(trace, targets, normed=change, libra=self.libra) as graph:
            tokens = graph.norms.first()
            values = tokens.detach() / fraction

            def combine(grads: list[Tensor]) -> Float[Tensor, "batch tokens"]:
                return (values * grads[0]).sum(-1)

            return graph.maps([tokens], combine)

    def _change(self, fraction: float, generator: torch.Generator) -> Change:
        """The change of the tokens in one step; noise is the same for every image of a batch."""
        if self.gradient == "integrated":
            return lambda tokens: tokens * fraction

        def noisy(tokens: Tensor) -> Tensor:
            noise = torch.randn(tokens.shape[1:], generator=generator, dtype=torch.float32)
            spread = tokens.detach().std(dim=(1, 2), keepdim=True)
            return tokens + self.noise * spread * noise.to(tokens)

        return noisy
