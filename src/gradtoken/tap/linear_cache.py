"""Linear layers of the readout's stream, answered from the forward that has already run.

The readout tokens went through every linear layer once, among all others. Their rows are kept, so
that the stream does not read the weights again to compute what is known. Gradients go through the
layer as usual.
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
    """The readout rows of one linear layer's input and output."""

    weight: Float[Tensor, "out in"]
    input: Float[Tensor, "batch rows in"]
    output: Float[Tensor, "batch rows out"]


class LinearCache:
    """Answers linear layers from recorded calls, each of which is used once.

    Args:
        calls: in the order they were made.
        copies: whether inputs and outputs are copied, since the model may write into them.
    """

    def __init__(self, calls: Iterable[LinearCall], *, copies: bool = False) -> None:
        self._copies = copies
        self._unused: dict[int, list[LinearCall]] = {}
        for call in calls:
            self._unused.setdefault(id(call.weight), []).append(call)
        self._pairs: list[tuple[Tensor, Tensor]] = []
        """Recorded and actual input of each layer answered."""

    def answer(self, tokens: Tensor, weight: Tensor) -> Tensor | None:
        """The layer's output with its gradient, or None if no such call was recorded."""
        calls = self._unused.get(id(weight))
        if not calls or calls[0].input.shape != tokens.shape:
            return None
        call = calls.pop(0)
        actual = tokens.detach()
        self._pairs.append((call.input, actual.clone() if self._copies else actual))
        output: Tensor = _CachedLinear.apply(tokens, weight.detach(), call.output)
        return output.clone() if self._copies else output

    def gap(self) -> float:
        """The largest difference between a layer's recorded and actual input, relative to the
        input's largest channel.
        """
        gaps = []
        for width in {expected.shape[-1] for expected, _ in self._pairs}:
            pairs = [pair for pair in self._pairs if pair[0].shape[-1] == width]
            expected, actual = (
                wide(torch.stack(side)).flatten(1) for side in zip(*pairs, strict=True)
            )
            size = expected.abs().amax(-1).clamp_min(1e-12)
            gaps.append(((expected - actual).abs().amax(-1) / size).max())
        return float(torch.stack(gaps).max()) if gaps else 0.0


class _CachedLinear(torch.autograd.Function):
    """y = x W^T + b with a recorded y: only the gradient, g W, is computed."""

    @staticmethod
    def forward(tokens: Tensor, weight: Tensor, output: Tensor) -> Tensor:
        return output.view_as(output)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        return (gradient @ weight.to(gradient.dtype)).to(ctx.dtype), None, None
