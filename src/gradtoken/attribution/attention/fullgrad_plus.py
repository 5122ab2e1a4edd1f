"""FullGrad+: gradient times token in every block, by LibraGrad's balanced gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.gradient_method import GradientMethod
from gradtoken.errors import NotSupportedError
from gradtoken.precision import wide
from gradtoken.tap.hooks import block_hooks
from gradtoken.tap.recorder import Recorder
from gradtoken.targets import Targets
from gradtoken.trace.autograd import gradients, gradients_enabled
from gradtoken.trace.libra import run_with_gradient, scoring
from gradtoken.trace.trace import Trace


@dataclass(frozen=True, kw_only=True)
class FullGradPlus(GradientMethod):
    """R_i = mean over blocks of sum_d T_id dy/dT_id, T the tokens entering a block.

    With LibraGrad's gradients, each block's sum over all tokens is the score less the share of the
    biases after it. Shares of biases, which belong to no token, are left out.

    Args:
        libra: False takes the model's own gradients.
    """

    name: ClassVar[str] = "fullgrad-plus"
    summary: ClassVar[str] = "gradient x token in every block, with LibraGrad's gradients"
    source: ClassVar[str] = "Mehri, Baghshah, Pilehvar, LibraGrad, CVPR 2025, section 2.1"

    libra: bool = True

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        return trace.patch_grid.pick(self.by_block(trace, targets).mean(0))

    def needs_queries(self) -> bool:
        return False

    def by_block(
        self, trace: Trace, targets: Targets
    ) -> Float[Tensor, "blocks batch targets tokens"]:
        """Gradient x token of all tokens entering each block.

        Raises:
            NotSupportedError: if there is not one chain of blocks.
        """
        trace.check_one_chain()
        model = trace.model
        if not trace.depth:
            raise NotSupportedError(
                f"needs the tokens entering each block, and {model.spec} is followed after its "
                "last one only; use gradtoken."
            )
        recorder = Recorder(copies=model.writes_in_place)
        watch = block_hooks(model.anatomy, recorder, graph="whole", every_block=True)
        with gradients_enabled(model):
            with watch as record, recorder:
                pixels = trace.images.clone().requires_grad_()
                logits = run_with_gradient(model, pixels, libra=self.libra)
            with scoring(libra=self.libra):
                scores = targets.scores(wide(logits)[:, None].expand(-1, targets.count, -1))
            tokens = [record.inputs[index] for index in range(trace.depth)]
            columns = []
            for k, score in enumerate(scores.sum(0)):
                grads = gradients(score, tokens, k + 1 < targets.count)
                shares = [
                    (wide(t.detach()) * wide(g)).sum(-1) for t, g in zip(tokens, grads, strict=True)
                ]
                columns.append(torch.stack(shares))
        return torch.stack(columns, dim=2)
