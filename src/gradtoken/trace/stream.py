"""Class-aware gradients along the readout's own stream: its tokens alone, others frozen."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.models.reading.observe import FAILURES
from gradtoken.precision import wide
from gradtoken.tap.frozen_context import STREAM_TOLERANCE, Stream, run_stream, stream_gap
from gradtoken.tap.linear_cache import LinearCache, LinearCall
from gradtoken.trace.autograd import vector_jacobian_products
from gradtoken.trace.readout import Readout
from gradtoken.trace.trace import Trace


def verified_stream(trace: Trace) -> Stream:
    """The readout tokens alone through the blocks, with a graph.

    The graph holds the readout tokens alone. Outputs of linear layers are taken from the recorded
    forward. Where a block treats a token alone differently than among the others, everything is
    computed again.

    Raises:
        ModelError: if the stream does not reproduce the model's own readout.
    """
    if not trace.reading.stream:
        raise ModelError(
            f"the readout's own stream does not lead where {trace.model.spec} leads (alone, its "
            "keys or values are not the model's, or the blocks take no single tokens); use "
            'gradient="full".'
        )
    stream = run_recorded(trace, trace.linears)
    if stream.gap > _tolerance(trace):
        stream = run_recorded(trace, [])
    _check_stream(trace, stream)
    return stream


def stream_readouts(
    trace: Trace,
    stream: Stream,
    arriving: dict[int, Float[Tensor, "batch targets rows dim"]],
    *,
    last: bool = False,
) -> list[list[Readout]]:
    """Each block's steps, from the gradients at the outputs of the blocks that the head reads.

    Args:
        trace: the recorded forward.
        stream: of its readout tokens.
        arriving: the gradients, by block.
        last: whether the steps of the last of these blocks alone are computed.
    """
    index = max(arriving)
    calls, tap = trace.block_calls, stream.tap
    steps = [
        step
        for step in zip(calls, tap.attention, tap.outputs, strict=True)
        if not last or step[0].place == index
    ]
    reads = {index: stream.tokens[index]} if last else stream.tokens
    vectors = [arriving[i].transpose(0, 1).to(token.dtype) for i, token in reads.items()]
    products = vector_jacobian_products(list(reads.values()), [s[2] for s in steps], vectors)
    blocks: list[list[Readout]] = [[] for _ in range(trace.depth)]
    for (call, attention, output), grads in zip(steps, products, strict=True):
        blocks[call.place].append(
            Readout(
                attention,
                wide(call.value),
                wide(output.detach()),
                wide(grads.movedim(0, 2)),
                trace.patch_grid.order,
            )
        )
    return blocks


def run_recorded(trace: Trace, linears: list[LinearCall]) -> Stream:
    """Run the readout tokens through the blocks, given recorded calls of linear layers.

    Raises:
        ModelError: if the blocks do not take single tokens.
    """
    model = trace.model
    try:
        return run_stream(
            model.anatomy,
            model.layout.rows,
            trace.block_record,
            trace.block_calls,
            LinearCache(linears, copies=model.writes_in_place),
            start=trace.start,
            copies=model.writes_in_place,
        )
    except (ModelError, torch.OutOfMemoryError):
        raise
    except FAILURES as error:
        raise ModelError(
            f"the blocks of {model.spec} cannot run on the readout's tokens alone "
            f'({(str(error).splitlines() or [type(error).__name__])[0]}); use gradient="full".'
        ) from error


def _tolerance(trace: Trace) -> float:
    return STREAM_TOLERANCE[trace.calls[0].key.dtype]


def _check_stream(trace: Trace, stream: Stream) -> None:
    gap = stream_gap(stream, trace.block_record, trace.model.layout.rows)
    allowed = _tolerance(trace)
    if not gap <= allowed:
        raise ModelError(
            f"the readout's own stream does not lead where {trace.model.spec} leads (relative "
            f"difference {gap:.2g}, at most {allowed:g} is rounding), so the model does more "
            'with it than its blocks; use gradient="full".'
        )
