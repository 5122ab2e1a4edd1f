"""Running a model once, and recording the forward as a `Trace`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.models.model import Model
from gradtoken.models.reading.blocks import check_blocks
from gradtoken.models.reading.grid import grid_of
from gradtoken.models.reading.observe import check_output, run, with_autograd
from gradtoken.models.reading.reading import check_current
from gradtoken.models.reading.readout import check_readout
from gradtoken.tap.attention_call import TAIL, AttentionCall
from gradtoken.tap.hooks import BlockRecord, block_hooks, contributing_calls
from gradtoken.tap.patch_attention import PatchAttention
from gradtoken.tap.recorder import Recorder
from gradtoken.trace.backward import own_calls
from gradtoken.trace.trace import Trace


def record(
    model: Model,
    images: Float[Tensor, "batch channels height width"],
    *,
    start: int = 0,
    queries: bool = True,
    affinity: Sequence[int] = (),
) -> Trace:
    """Run a model once on a preprocessed batch and keep what methods need.

    The forward is the model's own, in evaluation mode; only its tail, from the last block on,
    keeps a graph. The model is left unchanged, also when this raises.

    Args:
        model: the model.
        images: preprocessed images, of the size that the model takes.
        start: index of the first block whose attention is kept (`Method.first_block`).
        queries: whether the blocks' queries are kept (`Method.needs_queries`).
        affinity: blocks whose attention between patches is averaged (`Method.affinity_blocks`); of
            a model with one backbone.

    Raises:
        ModelError: if the forward fails, returns no (B, C) output, or its attention cannot be
            recorded.
    """
    with with_autograd(model):
        model = check_current(model)
        images = images.to(model.device, model.dtype).detach()
        total = images.sum()
        backbones = [replace(model, others=()), *model.others]
        start = 0 if model.others else start
        grids = [grid_of(backbone, images) for backbone in backbones]
        between = PatchAttention(
            grids[0].positions, grids[0].tokens, () if model.others else affinity
        )
        recorders, block_records, output = _recorded_forward(
            backbones, images, start, queries, between
        )
    if recorders[0].written and not model.writes_in_place:
        # a part of the module that did not run when the model was read writes in place
        for backbone in backbones:
            assert backbone.reading is not None
            backbone.reading.writes_in_place = True
        if not torch.equal(total, images.sum()):
            raise ModelError(
                f"{model.spec} wrote into its images, which it did not do when it was read; "
                "pass them again, it gets copies from now on."
            )
        return record(model, images, start=start, queries=queries, affinity=affinity)
    _check_output(model, output, len(images))
    traces = []
    for backbone, grid, recorder, block_record in zip(
        backbones, grids, recorders, block_records, strict=True
    ):
        calls = own_calls(backbone, block_record, contributing_calls(recorder.calls, output))
        check_blocks(backbone, block_record, calls, start)
        _check_tail(backbone, calls, block_record)
        check_readout(backbone, block_record, calls, output, grid)
        logits = output.detach()
        traces.append(
            Trace(
                backbone, images, logits, calls, grid, block_record, output, recorder.linears, start
            )
        )
    return replace(traces[0], model=model, others=tuple(traces[1:]), patch_attention=between)


def _recorded_forward(
    backbones: Sequence[Model],
    images: Tensor,
    start: int,
    queries: bool,
    between: PatchAttention,
) -> tuple[list[Recorder], list[BlockRecord], Any]:
    """One forward: each backbone's recorder and record of blocks, and the output."""
    copies = backbones[0].writes_in_place
    recorders = [
        Recorder(m.layout.rows, queries=queries, copies=copies, patch_attention=between)
        for m in backbones
    ]
    with ExitStack() as stack:
        # a model that turns gradients off for its blocks continues after them in its caller's mode
        turns_off = any(m.reading and not m.reading.differentiable for m in backbones)
        stack.enter_context(torch.set_grad_enabled(turns_off))
        block_records = [
            stack.enter_context(block_hooks(backbone.anatomy, recorder, graph="tail", start=start))
            for backbone, recorder in zip(backbones, recorders, strict=True)
        ]
        for recorder in recorders:
            stack.enter_context(recorder)
        return recorders, block_records, run(backbones[0], images)


def _check_output(model: Model, output: Any, count: int) -> None:
    check_output(model, output)
    if len(output) != count:
        raise ModelError(
            f"{model.spec} returned {tuple(output.shape)} for {count} images where logits (B, C) "
            "are needed; give it a classification head."
        )
    if model.prompts is None and output.shape[-1] != len(model.labels):
        raise ModelError(
            f"{model.spec} returned {output.shape[-1]} logits but has {len(model.labels)} labels; "
            "wrap it again, with labels=[…] of as many names."
        )


def _check_tail(model: Model, calls: list[AttentionCall], block_record: BlockRecord) -> None:
    """Check that the attention or the pool by which the class is read was recorded."""
    layout = model.layout
    places = {call.place for call in calls}
    if not layout.rows and layout.pool is None and TAIL not in places:
        raise ModelError(
            f"{model.spec} reads its class by attention after the last block, but none was seen, "
            "because it computes it by hand; build it with fused attention."
        )
    block_record.pooled(model.anatomy.pool)
