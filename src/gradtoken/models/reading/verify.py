"""Verifying a reading by the model's own gradient, in one forward on noise.

The forward is cut behind every block, so that a gradient arrives where the output really depends
on the blocks. The reading is right if the output depends on the tokens that it names and on nothing
else: no other token, no other block, no pixel by a way around the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradtoken.images.patch_grid import PatchGrid, averaged_tokens
from gradtoken.models.model import Model
from gradtoken.models.reading.blocks import check_blocks
from gradtoken.models.reading.gradients import (
    NEGLIGIBLE,
    gradients_at,
    gradients_blocked,
    norm,
    norm_outside,
    outputs_of,
    random_projection,
)
from gradtoken.models.reading.observe import Observation
from gradtoken.models.reading.owners import owners
from gradtoken.models.verification import Fact, ReadingError, VerifiedReadout
from gradtoken.tap.alignment import Alignment
from gradtoken.tap.attention_call import AttentionCall
from gradtoken.tap.hooks import BlockRecord

_EQUAL = {torch.float16: 0.02, torch.bfloat16: 0.1}


def verify(
    backbones: Sequence[Model], observed: Observation, grids: Sequence[PatchGrid]
) -> list[VerifiedReadout]:
    """Compare a reading with what a forward showed.

    Args:
        backbones: the model, each time with the blocks of another of its backbones.
        observed: that forward.
        grids: the spatial tokens of each backbone.

    Raises:
        ReadingError: if something contradicts the reading.
    """
    spec = backbones[0].spec
    for model, record, calls in zip(backbones, observed.records, observed.calls, strict=True):
        check_blocks(model, record, calls)
    ends = [dict(sorted(record.outputs.items())) for record in observed.records]
    nodes = [observed.pixels, *(leaf for end in ends for leaf in end.values())]
    grads = observed.gradients(nodes)
    if all(grad is None for grad in grads):
        if not observed.connected(nodes):
            raise ReadingError(
                f"the output of {spec} is not connected with its blocks by gradients (they are "
                "detached, or computed again in the backward pass by reentrant gradient "
                "checkpointing); compute it differentiably."
            )
        tails = [(Alignment(),) * len(observed.tail(b)) for b in range(len(backbones))]
        return [VerifiedReadout((), tail, Alignment(), blank=True) for tail in tails]
    whole = norm(grads[1:])
    around = norm(grads[:1]) / max(whole, torch.finfo(torch.float32).tiny)
    if around > NEGLIGIBLE:
        raise ReadingError(
            f"the output of {spec} depends on the image by a way around its blocks (a second "
            "backbone or a skip connection), which a map of the blocks would leave out."
        )
    facts = [Fact("gradient that reaches the pixels around the blocks", around, NEGLIGIBLE)]
    at = iter(grads[1:])
    arriving = [{index: next(at) for index in end} for end in ends]
    verified = []
    for number, model in enumerate(backbones):
        verified.append(
            _backbone(model, observed, number, arriving[number], whole, grids[number], facts)
        )
    return verified


def _backbone(
    model: Model,
    observed: Observation,
    number: int,
    arriving: dict[int, Tensor | None],
    whole: float,
    grid: PatchGrid,
    common: Sequence[Fact],
) -> VerifiedReadout:
    anatomy, record = model.anatomy, observed.records[number]
    facts = [*common, _other_blocks(model, arriving, whole)]
    chain = _chain(model, observed, record)
    facts.append(chain)
    last = record.outputs[len(anatomy.blocks) - 1]
    tail, pooled = observed.tail(number), record.pooled(anatomy.pool)
    reads = {index: record.outputs[index] for index in anatomy.reads}
    attended = outputs_of(tail)
    parts = attended if pooled is None else [*attended, pooled]
    direct = observed.gradients(list(reads.values()), parts)
    facts.append(_other_tokens(model, direct, whole))
    _check_parts(model, observed, [arriving[index] for index in anatomy.reads], pooled)
    aligned = _pool_alignment(model, pooled, last, grid)
    if pooled is not None:
        facts.append(_averaged(model, observed, pooled, aligned, grid))
    _check_tail(model, observed, tail, last, grid)
    values = [call.value.transpose(1, 2).flatten(2) for call in tail]
    with gradients_blocked(attended):
        return VerifiedReadout(
            tuple(facts), tuple(_aligned(value, last, grid, model) for value in values), aligned
        )


def _other_blocks(model: Model, arriving: dict[int, Tensor | None], whole: float) -> Fact:
    reads = model.anatomy.reads
    others = [index for index, grad in arriving.items() if grad is not None and index not in reads]
    share = norm([arriving[index] for index in others]) / whole
    if share > NEGLIGIBLE:
        raise ReadingError(
            f"{model.spec} is read as {model.anatomy.readout!r}, but {share:.0%} of its output's "
            f"gradient arrives at the output of other blocks ({_list(others)})."
        )
    return Fact("gradient at blocks that the head is not said to read", share, NEGLIGIBLE)


def _other_tokens(model: Model, direct: Sequence[Tensor | None], whole: float) -> Fact:
    share = norm_outside(direct, model.layout.rows) / whole
    if share > NEGLIGIBLE:
        raise ReadingError(
            f"{model.spec} is read as {model.anatomy.readout!r}, but {share:.0%} of its output's "
            "gradient at the last tokens lies elsewhere."
        )
    return Fact("gradient at tokens that the head is not said to read", share, NEGLIGIBLE)


def _check_parts(
    model: Model, observed: Observation, grads: list[Tensor | None], pooled: Tensor | None
) -> None:
    """See that the output depends on each token, pool or attention that the reading names."""
    layout, missing = model.layout, []
    for row in layout.rows:
        if not any(grad is not None and bool(grad[:, row].any()) for grad in grads):
            missing.append(f"token {row}")
    if pooled is not None and observed.gradients([pooled])[0] is None:
        missing.append("the average of tokens")
    if missing:
        raise ReadingError(
            f"{model.spec} is read as {model.anatomy.readout!r}, but its output does not depend on "
            f"{' and '.join(missing)}."
        )


def _averaged(
    model: Model, observed: Observation, pooled: Tensor, aligned: Alignment, grid: PatchGrid
) -> Fact:
    """See that the tokens said to be averaged matter equally, and no other but the readout's."""
    pool, layout = model.anatomy.pool, model.layout
    assert pool is not None
    assert layout.pool is not None
    (grad,) = observed.gradients([pooled])
    assert grad is not None
    gradient = pool.flat(grad)[0]
    lengths = grid.tokens, len(gradient)
    rows = list(aligned.positions(averaged_tokens(layout.pool, grid), *lengths))
    own = aligned.positions(layout.rows, *lengths)
    others = [i for i in range(len(gradient)) if i not in rows and i not in own]
    size = gradient[rows].abs().max().clamp_min(torch.finfo(gradient.dtype).tiny)
    gaps = [
        (gradient[rows] - gradient[rows[0]]).abs().max(),
        gradient[others].abs().max() if others else 0,
    ]
    worst = float(torch.stack([torch.as_tensor(gap).to(gradient) for gap in gaps]).max() / size)
    allowed = _EQUAL.get(pooled.dtype, 1e-3)
    if worst > allowed:
        raise ReadingError(
            f"{model.spec} is read as {model.anatomy.readout!r}, but its output does not depend "
            f"equally on these tokens and on no others (they differ by {worst:.0%})."
        )
    return Fact("difference between the gradients at averaged tokens", worst, allowed)


def _chain(model: Model, observed: Observation, record: BlockRecord) -> Fact:
    """See that each block gets what the one before it made, and nothing else."""
    worst = 0.0
    for index in range(len(model.anatomy.blocks)):
        _check_arguments(model, observed, record, index)
    for index in range(1, len(model.anatomy.blocks)):
        tokens, forwarded = record.inputs[index], record.forwarded[index - 1]
        if tokens is forwarded:
            continue
        others = [observed.pixels, *(record.outputs[i] for i in range(index - 1))]
        own, *rest = gradients_at(random_projection(tokens), [record.outputs[index - 1], *others])
        share = norm(rest) / max(norm([own]), torch.finfo(torch.float32).tiny)
        if own is None or share > NEGLIGIBLE:
            raise ReadingError(
                f"block {index} of {model.spec} gets more than what block {index - 1} made (a skip "
                "connection, or a second chain of blocks)."
            )
        worst = max(worst, share)
        _check_order(model, tokens, record.outputs[index - 1], index)
    return Fact("gradient between blocks that are not neighbours", worst, NEGLIGIBLE)


def _check_arguments(model: Model, observed: Observation, record: BlockRecord, index: int) -> None:
    """See that what a block is called with beside its tokens does not depend on the image."""
    arguments = record.arguments[index]
    rest = [t for t in (*arguments.args, *arguments.kwargs.values()) if isinstance(t, Tensor)]
    nodes = [observed.pixels, *record.outputs.values()]
    for tensor in rest:
        if tensor.requires_grad and norm(gradients_at(random_projection(tensor), nodes)) > 0:
            raise ReadingError(
                f"block {index} of {model.spec} gets something of the image beside its tokens (a "
                "skip connection, or conditioning), which a map would leave out."
            )


def _check_order(model: Model, tokens: Tensor, before: Tensor, index: int) -> None:
    positions = owners(tokens, before).token
    expected = torch.arange(len(positions), device=positions.device)
    if not bool(torch.equal(positions, expected)):
        raise ReadingError(
            f"{model.spec} mixes or reorders its tokens between blocks {index - 1} and {index}, so "
            "they cannot be followed to their patches."
        )


def _aligned(tokens: Tensor, last: Tensor, grid: PatchGrid, model: Model) -> Alignment | None:
    """How the sequence lies along the tokens of a step; None if the step has none of them.

    Raises:
        ReadingError: if it has some of the patches, or in another order.
    """
    owned = owners(tokens, last).token.tolist()
    at = [owned[position] for position in grid.positions]
    if all(position < 0 for position in at):
        return None
    aligned = None
    if min(at) >= 0:
        aligned = Alignment.of(grid.positions, at, len(owned), tokens.shape[1])
    if aligned is None:
        raise ReadingError(
            f"what {model.spec} does after its last block sees only some of the patches, or puts "
            "them in another order, so they cannot be followed."
        )
    return aligned


def _check_tail(
    model: Model,
    observed: Observation,
    tail: Sequence[AttentionCall],
    last: Tensor,
    grid: PatchGrid,
) -> None:
    """See that patches do not attend after the last block, as they would in further blocks."""
    for call in tail:
        if call.query.shape[-2] < len(grid.positions):
            continue
        with gradients_blocked(outputs_of(tail)):
            at = owners(call.query.transpose(1, 2).flatten(2), last).token.tolist()
        (grad,) = observed.gradients([call.output]) if call.output is not None else (None,)
        if grad is None:
            continue
        used = {row for row in range(grad.shape[-2]) if bool(grad[:, :, row].any())}
        if used & {at[position] for position in grid.positions if at[position] >= 0}:
            raise ReadingError(
                f"the patches of {model.spec} attend to one another after the "
                f"{len(model.anatomy.blocks)} modules that were taken for its blocks "
                f"({type(model.anatomy.blocks[-1]).__name__}), which a map would leave out."
            )


def _pool_alignment(
    model: Model, pooled: Tensor | None, last: Tensor, grid: PatchGrid
) -> Alignment:
    if pooled is None:
        return Alignment()
    pool = model.anatomy.pool
    assert pool is not None
    aligned = _aligned(pool.flat(pooled), last, grid, model)
    if aligned is None:
        raise ReadingError(
            f"{model.spec} is read as {model.anatomy.readout!r}, but what it averages mixes "
            "patches, so it is no average of patch tokens."
        )
    return aligned


def _list(items: Sequence[int]) -> str:
    return ", ".join(map(str, items[:8])) + (", …" if len(items) > 8 else "")
