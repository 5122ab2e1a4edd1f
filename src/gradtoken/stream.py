"""The readout's own stream: its tokens alone through the model's blocks, the others frozen."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.differentiated import each_gradient
from gradtoken.errors import ModelError
from gradtoken.known_linear import KnownLinears, LinearCall
from gradtoken.positions import Positions
from gradtoken.precision import wide
from gradtoken.readouts import Readout
from gradtoken.shared_context import times_context
from gradtoken.tap import AttentionCall, AttentionTap
from gradtoken.watch import first

if TYPE_CHECKING:
    from gradtoken.trace import Trace

_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.03}
"""How far the stream's tokens may be from the model's, relative to their largest channel."""


class FrozenContext(AttentionTap):
    """Lets the readout tokens alone attend to the tokens of an earlier forward.

    Each call's own keys and values (the live tokens) stand in for the positions `readout` of the
    recorded ones; all other keys and values are the recorded constants, which are never copied.
    Linear layers answer from `known` where they can.
    """

    def __init__(
        self, calls: list[AttentionCall], readout: tuple[int, ...], known: KnownLinears
    ) -> None:
        super().__init__()
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
        return output.clone()


def follow(trace: Trace, arriving: Float[Tensor, "batch targets rows dim"]) -> list[list[Readout]]:
    """Each block's steps, from the gradients that arrive at the stream's end.

    The graph holds the readout tokens alone. Layers are answered from the recorded forward; where
    a block turns out to treat a token alone otherwise than among the others, all is computed anew.

    Raises:
        ModelError: if the stream does not lead to the model's own readout.
    """
    token, tap, known = _run(trace, trace.linears)
    if known.gap() > _TOLERANCE[trace.calls[0].key.dtype]:
        token, tap, _ = _run(trace, [])
    _check(trace, token.detach())
    found = each_gradient(token, tap.outputs, arriving.transpose(0, 1).to(token.dtype))
    blocks: list[list[Readout]] = [[] for _ in range(trace.depth)]
    steps = zip(trace.block_calls, tap.attention, tap.outputs, found, strict=True)
    for call, attention, output, each in steps:
        blocks[call.place].append(
            Readout(attention, wide(call.value), wide(output.detach()), wide(each.movedim(0, 2)))
        )
    return blocks


def _run(trace: Trace, linears: list[LinearCall]) -> tuple[Tensor, FrozenContext, KnownLinears]:
    """The readout tokens (B, R, D) at the end, with a graph, and what was seen on the way."""
    anatomy, rows = trace.model.anatomy, trace.model.layout.rows
    entering = trace.seen.inputs[trace.start][:, list(rows)].detach().requires_grad_()
    token = entering.clone()
    known = KnownLinears(linears)
    tap = FrozenContext(trace.block_calls, rows, known)
    with tap:
        steps = zip(anatomy.blocks, trace.seen.given, strict=True)
        for block, given in islice(steps, trace.start, None):
            token = first(anatomy.step(block, token, given))
    return token, tap, known


def _check(trace: Trace, tokens: Float[Tensor, "batch rows dim"]) -> None:
    assert trace.seen.last is not None
    expected = wide(trace.seen.last.detach()[:, list(trace.model.layout.rows)])
    gap = float((wide(tokens) - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    allowed = _TOLERANCE[trace.calls[0].key.dtype]
    if not gap <= allowed:
        raise ModelError(
            f"the readout's own stream does not lead where {trace.model.spec} leads (relative "
            f"difference {gap:.2g}, at most {allowed:g} is rounding), so the model does more "
            'with it than its blocks; use gradient="full".'
        )
