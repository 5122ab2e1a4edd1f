"""Is the class of one forward read as the model's reading says?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.model import Model
from gradtoken.models.reading.gradients import (
    NEGLIGIBLE,
    _norm,
    _outside,
    outputs_of,
    projected,
    reaches,
    without,
)
from gradtoken.precision import wide
from gradtoken.tap.tap import TAIL, AttentionCall
from gradtoken.tap.watch import Seen


def check_readout(
    model: Model, seen: Seen, calls: Sequence[AttentionCall], output: Tensor, grid: PatchGrid
) -> None:
    """See that a forward read its class as the model's reading says: one backward of its tail.

    It may not, for an input of another size or a batch, or since the model's settings or weights
    were changed.

    Args:
        model: with one backbone.
        seen: what the forward showed.
        calls: the attention calls that its output depends on.
        output: the model's output, with a graph from the last tokens on.
        grid: the spatial tokens of inputs of this size.

    Raises:
        ModelError: if it did not.
    """
    if not seen.lengths or not output.requires_grad:
        return
    again = "wrap it again, with preprocessing to the size it is used at"
    if seen.lengths[0] != grid.tokens:
        raise ModelError(
            f"{model.spec} makes {seen.lengths[0]} tokens of images of {grid.size[1]}x"
            f"{grid.size[0]} pixels, and made {grid.tokens} when it was read; {again}."
        )
    reads = [seen.leaving[index] for index in model.anatomy.reads]
    parts = outputs_of(call for call in calls if call.place == TAIL)
    pooled = seen.pooled(model.anatomy.pool)
    parts += [] if pooled is None else [pooled]
    with torch.enable_grad():
        score = projected(wide(output))
        with without(parts):
            outside = _outside(reaches(score, reads), model.layout.rows)
        if not outside:
            return
        share = outside / _norm(reaches(score, reads))
    if not share <= NEGLIGIBLE:
        raise ModelError(
            f"{model.spec} was read as {model.anatomy.readout!r}, but {share:.0%} of its output's "
            "gradient at the last tokens lies elsewhere for these images; if its settings or "
            f"weights were changed, or it is used at another size, {again}."
        )
