"""Checking a forward's readout against the model's reading."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.model import Model
from gradtoken.models.reading.gradients import (
    NEGLIGIBLE,
    gradients_at,
    gradients_blocked,
    norm,
    norm_outside,
    outputs_of,
    random_projection,
)
from gradtoken.precision import wide
from gradtoken.tap.attention_call import TAIL, AttentionCall
from gradtoken.tap.hooks import BlockRecord


def check_readout(
    model: Model,
    record: BlockRecord,
    calls: Sequence[AttentionCall],
    output: Tensor,
    grid: PatchGrid,
) -> None:
    """See that a forward reads its class as the model's reading says, by one backward of its tail.

    It may not, for an input of another size or a batch, or since the model's settings or weights
    were changed.

    Args:
        model: with one backbone.
        record: the forward's blocks.
        calls: the attention calls that its output depends on.
        output: the model's output, with a graph from the last tokens on.
        grid: the spatial tokens of inputs of this size.

    Raises:
        ModelError: if it did not.
    """
    if not record.lengths or not output.requires_grad:
        return
    again = "wrap it again, with preprocessing to the size it is used at"
    if record.lengths[0] != grid.tokens:
        raise ModelError(
            f"{model.spec} makes {record.lengths[0]} tokens of images of {grid.size[1]}x"
            f"{grid.size[0]} pixels, and made {grid.tokens} when it was read; {again}."
        )
    reads = [record.outputs[index] for index in model.anatomy.reads]
    parts = outputs_of(call for call in calls if call.place == TAIL)
    pooled = record.pooled(model.anatomy.pool)
    parts += [] if pooled is None else [pooled]
    with torch.enable_grad():
        score = random_projection(wide(output))
        with gradients_blocked(parts):
            outside = norm_outside(gradients_at(score, reads), model.layout.rows)
        if not outside:
            return
        share = outside / norm(gradients_at(score, reads))
    if not share <= NEGLIGIBLE:
        raise ModelError(
            f"{model.spec} was read as {model.anatomy.readout!r}, but {share:.0%} of its output's "
            "gradient at the last tokens lies elsewhere for these images; if its settings or "
            f"weights were changed, or it is used at another size, {again}."
        )
