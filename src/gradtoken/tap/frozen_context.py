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
from gradtoken.tap.attention_call import AttentionCall
from gradtoken.tap.attention_tap import AttentionTap
from gradtoken.tap.block_io import output_tokens
from gradtoken.tap.hooks import BlockRecord
from gradtoken.tap.linear_cache import LinearCache
from gradtoken.tap.positions import Positions
from gradtoken.tap.shared_context import times_context

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
    Linear layers are answered from `cache` where it has them.
    """

    def __init__(
        self,
        calls: Sequence[AttentionCall],
        readout: tuple[int, ...],
        cache: LinearCache,
        *,
        copies: bool = False,
        compare: bool = False,
    ) -> None:
        super().__init__()
        self._copies = copies
        self._compare = compare
        self.gap = 0.0
        """How far the readout's keys and values are from the recorded ones, relative to the largest
        of these, if they are compared."""
        self._calls = calls
        self._readout = Positions(readout)
        self._cache = cache
        self.outputs: list[Float[Tensor, "batch heads rows width"]] = []
        self.attention: list[Float[Tensor, "batch heads rows tokens"]] = []

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        cached = self._cache.answer(input, weight)
        return F.linear(input, weight, bias) if cached is None else cached

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
        return output.clone() if self._copies else output


@dataclass(frozen=True)
class Stream:
    """One run of the readout tokens through the blocks.

    Args:
        tokens: (B, R, D) leaving each block that the head reads, with a graph, by block.
        tap: its attention calls.
        gap: how far the linear layers' inputs are from the recorded ones.
    """

    tokens: dict[int, Float[Tensor, "batch rows dim"]]
    tap: FrozenContext
    gap: float


def run_stream(
    anatomy: Anatomy,
    rows: tuple[int, ...],
    record: BlockRecord,
    calls: Sequence[AttentionCall],
    cache: LinearCache,
    *,
    start: int = 0,
    copies: bool = False,
    compare: bool = False,
) -> Stream:
    """Run the readout tokens alone through the blocks of a recorded forward.

    Args:
        anatomy: the blocks, and how one is run on few tokens.
        rows: positions of the readout tokens.
        record: the recorded forward.
        calls: the blocks' attention calls in it, from block `start` on.
        cache: answers linear layers.
        start: the first block.
        copies: whether tokens are copied, since the blocks may write into them.
        compare: whether keys and values are compared with the recorded ones.
    """
    token = record.inputs[start][:, list(rows)].detach().requires_grad_()
    tap = FrozenContext(calls, rows, cache, copies=copies, compare=compare)
    tokens = {}
    with tap:
        steps = enumerate(zip(anatomy.blocks, record.arguments, strict=True))
        for index, (block, arguments) in islice(steps, start, None):
            token = output_tokens(
                anatomy.step(block, token.clone() if copies else token, arguments)
            )
            if index in anatomy.reads:
                tokens[index] = token
    return Stream(tokens, tap, cache.gap())


def stream_gap(stream: Stream, record: BlockRecord, rows: tuple[int, ...]) -> float:
    """How far the stream's tokens are from the model's, relative to their largest channel."""
    gaps = [stream.tap.gap]
    for index, tokens in stream.tokens.items():
        gaps.append(_gap(tokens, record.outputs[index][:, list(rows)]))
    return max(gaps)


def _gap(actual: Tensor, expected: Tensor) -> float:
    actual, expected = wide(actual.detach()), wide(expected.detach())
    return float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
