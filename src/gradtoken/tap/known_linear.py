"""Linear layers of the stream, answered from the forward that has already run.

The readout tokens went through every linear layer once, among all others. Their rows are kept, so
that the stream does not read the weights again to compute what is known; gradients go through the
layer as ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.precision import wide


@dataclass(frozen=True)
class LinearCall:
    """What one linear layer was given for the readout rows, and what it made of them."""

    weight: Float[Tensor, "out in"]
    given: Float[Tensor, "batch rows in"]
    made: Float[Tensor, "batch rows out"]


class KnownLinears:
    """Answers linear layers from recorded calls, each of which is used once.

    Args:
        calls: in the order they were made.
        apart: whether the model may write into what it gets and gives, so that copies are kept.
    """

    def __init__(self, calls: Iterable[LinearCall], *, apart: bool = False) -> None:
        self._apart = apart
        self._left: dict[int, list[LinearCall]] = {}
        for call in calls:
            self._left.setdefault(id(call.weight), []).append(call)
        self._used: list[tuple[Tensor, Tensor]] = []

    def answer(self, tokens: Tensor, weight: Tensor) -> Tensor | None:
        """The layer's output with its gradient, or None if no such call was recorded."""
        calls = self._left.get(id(weight))
        if not calls or calls[0].given.shape != tokens.shape:
            return None
        call = calls.pop(0)
        asked = tokens.detach()
        self._used.append((call.given, asked.clone() if self._apart else asked))
        made: Tensor = _Known.apply(tokens, weight.detach(), call.made)
        return made.clone() if self._apart else made

    def gap(self) -> float:
        """The largest difference between what a layer was recorded and asked with, relative to its
        largest channel."""
        gaps = []
        for width in {given.shape[-1] for given, _ in self._used}:
            pairs = [pair for pair in self._used if pair[0].shape[-1] == width]
            expected, asked = (
                wide(torch.stack(side)).flatten(1) for side in zip(*pairs, strict=True)
            )
            size = expected.abs().amax(-1).clamp_min(1e-12)
            gaps.append(((expected - asked).abs().amax(-1) / size).max())
        return float(torch.stack(gaps).max()) if gaps else 0.0


class _Known(torch.autograd.Function):
    """y = x W^T + b with y given: only the gradient, g W, is computed."""

    @staticmethod
    def forward(tokens: Tensor, weight: Tensor, made: Tensor) -> Tensor:
        return made.view_as(made)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        return (gradient @ weight.to(gradient.dtype)).to(ctx.dtype), None, None
