"""The readout's steps by backpropagation: through the whole model, or through its tail alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.models.model import Model
from gradtoken.models.reading.gradients import gradients_at, random_projection
from gradtoken.tap.attention_call import TAIL, AttentionCall
from gradtoken.tap.hooks import BlockRecord, block_hooks, contributing_calls
from gradtoken.tap.recorder import Recorder
from gradtoken.trace.autograd import (
    gradients,
    gradients_enabled,
    vector_jacobian_products,
)
from gradtoken.trace.libra import run_with_gradient
from gradtoken.trace.readout import Readout, Readouts, attention_readout, average_readout
from gradtoken.trace.trace import Trace

Seeds: TypeAlias = Float[Tensor, "targets batch classes"]
"""The gradient of each target's score by the model's output."""

TAIL_ELEMENTS = 1 << 20
"""Gradients held at once at the tail's nodes; more targets run in several chunks."""


def backward_through_model(
    trace: Trace,
    seeds: Seeds | Callable[[Tensor], Seeds],
    *,
    recorder: Recorder | None = None,
    libra: bool = False,
) -> Readouts:
    """All steps, by a second forward with a graph and one backward pass per target.

    Args:
        trace: a record of the images.
        seeds: the gradient of each target's score by the model's output, (T, B, C), or a function
            of that output, which a recorder may change.
        recorder: records the attention of the second forward; None for a plain one.
        libra: whether the gradients are LibraGrad's.

    Raises:
        NotSupportedError: if LibraGrad has no rule for an operation of the model.
    """
    anatomy, rows = trace.model.anatomy, trace.rows()
    recorder = recorder or Recorder(copies=trace.model.writes_in_place)
    with gradients_enabled(trace.model):
        images = trace.images.clone().requires_grad_()
        with block_hooks(anatomy, recorder, graph="whole") as block_record, recorder:
            logits = run_with_gradient(trace.model, images, libra=libra)
        calls = own_calls(trace.model, block_record, contributing_calls(recorder.calls, logits))
        pooled = block_record.pooled(anatomy.pool)
        at: list[Tensor] = [call.output for call in calls if call.output is not None]
        if pooled is not None:
            at.append(pooled)
        seeds = (seeds(logits) if callable(seeds) else seeds).to(logits.dtype)
        grads = [
            gradients(logits, at, k + 1 < len(seeds), vector=seed) for k, seed in enumerate(seeds)
        ]
    columns = [list(column) for column in zip(*grads, strict=True)]
    blocks: list[list[Readout]] = [[] for _ in range(trace.depth)]
    inside = [call for call in calls if call.place != TAIL]
    for call, column in zip(inside, columns, strict=False):
        blocks[call.place].append(attention_readout(call, rows, column, trace.patch_grid.order))
    return Readouts(
        blocks, _tail_readouts(trace, calls[len(inside) :], pooled, columns[len(inside) :])
    )


def backward_through_tail(
    trace: Trace, seeds: Seeds
) -> tuple[list[Readout], dict[int, Float[Tensor, "batch targets rows dim"]]]:
    """The steps after the last block, and the gradients at the readout tokens where they start.

    The gradients are keyed by the index of the block whose output the tokens are.
    """
    rows, steps, block_record = trace.model.layout.rows, trace.tail_calls, trace.block_record
    at: list[Tensor] = [call.output for call in steps if call.output is not None]
    pooled = block_record.pooled(trace.model.anatomy.pool)
    if pooled is not None:
        at.append(pooled)
    reads = trace.model.anatomy.reads if rows else ()
    at += [block_record.outputs[index] for index in reads]
    columns = _tail_gradients(trace, seeds, at, len(reads))
    count = len(at) - len(reads)
    arriving = {
        index: column.transpose(0, 1) for index, column in zip(reads, columns[count:], strict=True)
    }
    return _tail_readouts(trace, steps, pooled, columns[:count]), arriving


def _tail_readouts(
    trace: Trace, calls: list[AttentionCall], pooled: Tensor | None, columns: list[Any]
) -> list[Readout]:
    """The steps after the last block, from each target's gradients at them.

    Calls that attend to no patches are left out.
    """
    orders = _tail_orders(trace, calls)
    steps = [
        attention_readout(call, slice(None), column, order)
        for call, column, order in zip(calls, columns, orders, strict=False)
        if order != ()
    ]
    if pooled is not None:
        pool = trace.model.anatomy.pool
        assert pool is not None
        order, rows = trace.pooled_order(), _pooled_rows(trace)
        steps.append(average_readout(trace.model, pool.flat(pooled), columns[-1], rows, order))
    return steps


def _tail_gradients(
    trace: Trace, seeds: Seeds, at: list[Tensor], reads: int
) -> list[Float[Tensor, "targets batch *node"]]:
    """The class-aware gradients at some nodes of the tail.

    The last `reads` nodes are tokens; of these only the readout's rows are kept.
    """
    rows = list(trace.model.layout.rows)
    seeds = seeds.to(trace.output.dtype)
    step = max(1, TAIL_ELEMENTS // sum(node.numel() for node in at))
    plain = len(at) - reads
    chunks = []
    with gradients_enabled(trace.model):
        for start in range(0, len(seeds), step):
            vectors = [seeds[start : start + step]]
            grads = vector_jacobian_products([trace.output], at, vectors)
            chunks.append([*grads[:plain], *(grad[:, :, rows] for grad in grads[plain:])])
    return [torch.cat(column) for column in zip(*chunks, strict=True)]


def _tail_orders(trace: Trace, calls: Sequence[AttentionCall]) -> list[tuple[int, ...] | None]:
    """For each call after the last block, the positions of the spatial tokens among its keys.

    None stands for the last positions; a call that attends to no patches has the empty tuple.

    Raises:
        ModelError: if there are other calls than when the model was read.
    """
    tail = trace.reading.tail
    if len(calls) != len(tail):
        raise ModelError(
            f"{trace.model.spec} made {len(calls)} attention calls after its last block, and "
            f"{len(tail)} when it was read; wrap it again."
        )
    return [
        () if aligned is None else trace.spatial_order(aligned, call.key.shape[-2])
        for call, aligned in zip(calls, tail, strict=True)
    ]


def _pooled_rows(trace: Trace) -> list[int]:
    """Positions, among the tokens of `Trace.pooled`, of those that the head averages."""
    count, tokens = trace.pooled().shape[1], trace.patch_grid.tokens
    return list(trace.reading.pooled.positions(trace.averaged(), tokens, count))


def own_calls(
    model: Model, block_record: BlockRecord, calls: list[AttentionCall]
) -> list[AttentionCall]:
    """The calls without the attention after the last block that belongs to another backbone."""
    assert model.reading is not None
    tail = [call for call in calls if call.place == TAIL]
    if len(tail) <= len(model.reading.tail) or not model.anatomy.blocks:
        return calls
    last = block_record.outputs[len(model.anatomy.blocks) - 1]
    own = [
        c
        for c in tail
        if c.output is not None and gradients_at(random_projection(c.output), [last])[0] is not None
    ]
    return [call for call in calls if call.place != TAIL] + own
