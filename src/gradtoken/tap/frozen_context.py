"""The readout's own stream: its tokens alone through the model's blocks, the others frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.errors import ModelError
from gradtoken.precision import wide
from gradtoken.tap.anatomy import Anatomy
from gradtoken.tap.calls import first
from gradtoken.tap.known_linear import KnownLinears
from gradtoken.tap.positions import Positions
from gradtoken.tap.shared_context import times_context
from gradtoken.tap.tap import AttentionCall, AttentionTap
from gradtoken.tap.watch import Seen

STREAM_TOLERANCE = {
    torch.float64: 1e-8,
    torch.float32: 1e-3,
    torch.bfloat16: 0.1,
    torch.float16: 0.03,
}
"""How far the stream's tokens may be from the model's, relative to their largest channel."""


class FrozenContext(AttentionTap):
    """Lets the readout tokens alone attend to the tokens of an earlier forward.

    Each call's own keys and values (the live tokens) stand in for the positions `readout` of the
    recorded ones; all other keys and values are the recorded constants, which are never copied.
    Linear layers answer from `known` where they can.
    """

    def __init__(
        self,
        calls: Sequence[AttentionCall],
        readout: tuple[int, ...],
        known: KnownLinears,
        *,
        apart: bool = False,
        compare: bool = False,
    ) -> None:
        super().__init__()
        self._apart = apart
        self._compare = compare
        self.gap = 0.0
        """How far the readout's keys and values are from the recorded ones, if they are compared,
        relative to the largest of these."""
        self._calls = calls
        self._readout = Positions(readout)
        self._known = known
        self.outputs: list[Float[Tensor, "batch heads rows width"]] = []
        self.attention: list[Float[Tensor, "batch heads rows tokens"]] = []

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        known = self._known.answer(input, weight)
        return F.linear(input, weight, bias) if known is None else known

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        if len(self.outputs) == len(self._calls):
            raise ModelError("the blocks made more attention calls for one token than for all.")
        if call.query.shape[2] != len(self._readout):
            raise ModelError(
                "a block added tokens of its own, so the readout cannot run through it alone."
            )
        context, rows = self._calls[len(self.outputs)], self._readout
        if self._compare:
            pairs = (call.key, context.key), (call.value, context.value)
            self.gap = max(self.gap, *(_gap(own, rows.of(all_, 2)) for own, all_ in pairs))
        query = call.query * context.scale
        scores = times_context(query, context.key.detach().transpose(-2, -1))
        own = (query[:, :, :, None] * call.key[:, :, None]).sum(-1).to(scores.dtype)
        scores = wide(scores.index_copy(-1, rows.index(scores.device), own))
        attention = (scores + context.bias(list(rows.rows), scores)).softmax(-1)
        self.attention.append(attention.detach())
        attention, values = attention.to(call.value.dtype), context.value.detach()
        change = call.value - rows.of(values, 2)
        live = (rows.of(attention, -1)[..., None] * change[:, :, None]).sum(-2)
        output = times_context(attention, values) + live
        self.outputs.append(output)
        return output.clone() if self._apart else output


@dataclass(frozen=True)
class Stream:
    """One run of the readout tokens through the blocks.

    Args:
        tokens: (B, R, D) leaving each block that the head reads, with a graph, by block.
        tap: what its attention calls used and made.
        gap: how far what linear layers were given is from what was recorded of them.
    """

    tokens: dict[int, Float[Tensor, "batch rows dim"]]
    tap: FrozenContext
    gap: float


def run_stream(
    anatomy: Anatomy,
    rows: tuple[int, ...],
    seen: Seen,
    calls: Sequence[AttentionCall],
    known: KnownLinears,
    *,
    start: int = 0,
    apart: bool = False,
    compare: bool = False,
) -> Stream:
    """Run the readout tokens alone through the blocks of a recorded forward.

    Args:
        anatomy: the blocks, and how one is run on few tokens.
        rows: positions of the readout tokens.
        seen: the recorded forward.
        calls: the blocks' attention calls in it, from block `start` on.
        known: answers linear layers.
        start: the first block.
        apart: whether blocks may write into what they are given and make.
        compare: whether keys and values are compared with the recorded ones.
    """
    token = seen.inputs[start][:, list(rows)].detach().requires_grad_()
    tap = FrozenContext(calls, rows, known, apart=apart, compare=compare)
    tokens = {}
    with tap:
        steps = enumerate(zip(anatomy.blocks, seen.given, strict=True))
        for index, (block, given) in islice(steps, start, None):
            token = first(anatomy.step(block, token.clone() if apart else token, given))
            if index in anatomy.reads:
                tokens[index] = token
    return Stream(tokens, tap, known.gap())


def stream_gap(stream: Stream, seen: Seen, rows: tuple[int, ...]) -> float:
    """How far the stream's tokens are from the model's, relative to their largest channel."""
    gaps = [stream.tap.gap]
    for index, tokens in stream.tokens.items():
        gaps.append(_gap(tokens, seen.leaving[index][:, list(rows)]))
    return max(gaps)


def _gap(found: Tensor, expected: Tensor) -> float:
    found, expected = wide(found.detach()), wide(expected.detach())
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
