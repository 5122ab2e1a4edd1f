"""The readout's steps by backpropagation through the whole model, and through its tail alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.differentiated import each_gradient, gradients
from gradtoken.in_place import writes
from gradtoken.precision import wide
from gradtoken.readouts import Readout, Readouts, averaged, called
from gradtoken.tap import TAIL, Recorder
from gradtoken.targets import Targets
from gradtoken.watch import on_the_way, watching

if TYPE_CHECKING:
    from gradtoken.trace import Trace

_TAIL_ELEMENTS = 1 << 20
"""Gradients of one chunk of targets at the tail's nodes; more targets run in several chunks."""


def through_model(trace: Trace, targets: Targets) -> Readouts:
    """All steps, by a second forward, with a graph, and one backward for each target."""
    anatomy, rows = trace.model.anatomy, trace.rows()
    recorder = Recorder(apart=writes(trace.model.module))
    with trace.differentiating():
        images = trace.images.clone().requires_grad_()
        with watching(anatomy, recorder, tail_graph=False) as seen, recorder:
            logits = trace.model.run(images)
        calls = on_the_way(recorder.calls, logits)
        at: list[Tensor] = [call.output for call in calls if call.output is not None]
        if seen.pooled is not None:
            at.append(seen.pooled)
        scores = targets.scores(wide(logits)[:, None].expand(-1, targets.count, -1)).sum(0)
        found = [gradients(y, at, k + 1 < targets.count) for k, y in enumerate(scores)]
    columns = [list(column) for column in zip(*found, strict=True)]
    blocks: list[list[Readout]] = [[] for _ in range(trace.depth)]
    tail = []
    for call, column in zip(calls, columns, strict=False):
        if call.place == TAIL:
            tail.append(called(call, slice(None), column))
        else:
            blocks[call.place].append(called(call, rows, column))
    if anatomy.pool is not None and seen.pooled is not None:
        tail.append(averaged(trace.model, anatomy.pool.flat(seen.pooled), columns[-1]))
    return Readouts(blocks, tail)


def through_tail(
    trace: Trace, targets: Targets
) -> tuple[list[Readout], Float[Tensor, "batch targets rows dim"] | None]:
    """The tail's steps, and the gradient at the readout tokens it begins with, if it reads any."""
    rows, steps = trace.model.layout.rows, trace.tail_calls
    at: list[Tensor] = [call.output for call in steps if call.output is not None]
    if trace.seen.pooled is not None:
        at.append(trace.seen.pooled)
    if rows:
        assert trace.seen.last is not None
        at.append(trace.seen.last)
    columns = _tail_gradients(trace, targets, at)
    arriving = columns.pop().transpose(0, 1) if rows else None
    tail = [called(call, slice(None), columns.pop(0)) for call in steps]
    if trace.seen.pooled is not None:
        tail.append(averaged(trace.model, trace.pooled(), columns.pop()))
    return tail, arriving


def _tail_gradients(
    trace: Trace, targets: Targets, at: list[Tensor]
) -> list[Float[Tensor, "targets batch *node"]]:
    """The class-aware gradients at some nodes of the tail; at the last tokens, of the readout's
    rows alone."""
    rows, last = list(trace.model.layout.rows), trace.seen.last
    seeds = trace.seeds(targets).to(trace.output.dtype)
    step = max(1, _TAIL_ELEMENTS // sum(node.numel() for node in at))
    chunks = []
    with trace.differentiating():
        for start in range(0, targets.count, step):
            found = each_gradient(trace.output, at, seeds[start : start + step])
            chunks.append(
                [g[:, :, rows] if o is last else g for o, g in zip(at, found, strict=True)]
            )
    return [torch.cat(column) for column in zip(*chunks, strict=True)]
