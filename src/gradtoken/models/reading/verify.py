"""Is a model's reading right? Verified on the model's own gradient, in one forward on noise.

The forward is cut behind every block, so that a gradient arrives where the output really depends
on the blocks. The reading is right if the output depends on the tokens that it names and on nothing
else: no other token, no other block, no pixel by a way around the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradtoken.images.patch_grid import PatchGrid, averaged_tokens
from gradtoken.models.facts import Fact, Misread, Verified
from gradtoken.models.model import Model
from gradtoken.models.reading.blocks import check_blocks
from gradtoken.models.reading.gradients import (
    NEGLIGIBLE,
    _norm,
    _outside,
    outputs_of,
    projected,
    reaches,
    without,
)
from gradtoken.models.reading.observe import Observation
from gradtoken.models.reading.owners import owners
from gradtoken.tap.alignment import Alignment
from gradtoken.tap.tap import AttentionCall
from gradtoken.tap.watch import Seen

_EQUAL = {torch.float16: 0.02, torch.bfloat16: 0.1}


def verify(
    backbones: Sequence[Model], observed: Observation, grids: Sequence[PatchGrid]
) -> list[Verified]:
    """Compare a reading with what a forward showed.

    Args:
        backbones: the model, each time with the blocks of another of its backbones.
        observed: that forward.
        grids: the spatial tokens of each backbone.

    Raises:
        Misread: if something contradicts the reading.
    """
    spec = backbones[0].spec
    for model, seen, calls in zip(backbones, observed.seen, observed.calls, strict=True):
        check_blocks(model, seen, calls)
    ends = [dict(sorted(seen.leaving.items())) for seen in observed.seen]
    nodes = [observed.pixels, *(leaf for end in ends for leaf in end.values())]
    found = observed.gradients(nodes)
    if all(grad is None for grad in found):
        if not observed.connected(nodes):
            raise Misread(
                f"the output of {spec} is not connected with its blocks by gradients (they are "
                "detached, or computed again in the backward pass by reentrant gradient "
                "checkpointing); compute it differentiably."
            )
        tails = [(Alignment(),) * len(observed.tail(b)) for b in range(len(backbones))]
        return [Verified((), tail, Alignment(), blank=True) for tail in tails]
    whole = _norm(found[1:])
    around = _norm(found[:1]) / max(whole, torch.finfo(torch.float32).tiny)
    if around > NEGLIGIBLE:
        raise Misread(
            f"the output of {spec} depends on the image by a way around its blocks (a second "
            "backbone or a skip connection), which a map of the blocks would leave out."
        )
    facts = [Fact("gradient that reaches the pixels around the blocks", around, NEGLIGIBLE)]
    at = iter(found[1:])
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
) -> Verified:
    anatomy, seen = model.anatomy, observed.seen[number]
    facts = [*common, _other_blocks(model, arriving, whole)]
    chain = _chain(model, observed, seen)
    facts.append(chain)
    last = seen.leaving[len(anatomy.blocks) - 1]
    tail, pooled = observed.tail(number), seen.pooled(anatomy.pool)
    reads = {index: seen.leaving[index] for index in anatomy.reads}
    attended = outputs_of(tail)
    parts = attended if pooled is None else [*attended, pooled]
    direct = observed.gradients(list(reads.values()), parts)
    facts.append(_other_tokens(model, direct, whole, grid))
    _check_parts(model, observed, [arriving[index] for index in anatomy.reads], pooled)
    aligned = _pool_alignment(model, pooled, last, grid)
    if pooled is not None:
        facts.append(_averaged(model, observed, pooled, aligned, grid))
    _check_tail(model, observed, tail, last, grid)
    values = [call.value.transpose(1, 2).flatten(2) for call in tail]
    with without(attended):
        return Verified(
            tuple(facts), tuple(_aligned(value, last, grid, model) for value in values), aligned
        )


def _other_blocks(model: Model, arriving: dict[int, Tensor | None], whole: float) -> Fact:
    reads = model.anatomy.reads
    others = [index for index, grad in arriving.items() if grad is not None and index not in reads]
    share = _norm([arriving[index] for index in others]) / whole
    if share > NEGLIGIBLE:
        raise Misread(
            f"{model.spec} is read as {model.anatomy.readout!r}, but {share:.0%} of its output's "
            f"gradient arrives at the output of other blocks ({_list(others)})."
        )
    return Fact("gradient at blocks that the head is not said to read", share, NEGLIGIBLE)


def _other_tokens(
    model: Model, direct: Sequence[Tensor | None], whole: float, grid: PatchGrid
) -> Fact:
    share = _outside(direct, model.layout.rows) / whole
    if share > NEGLIGIBLE:
        raise Misread(
            f"{model.spec} is read as {model.anatomy.readout!r}, but {share:.0%} of its output's "
            "gradient at the last tokens lies elsewhere."
        )
    return Fact("gradient at tokens that the head is not said to read", share, NEGLIGIBLE)


def _check_parts(
    model: Model, observed: Observation, found: list[Tensor | None], pooled: Tensor | None
) -> None:
    """See that the output depends on each token, pool or attention that the reading names."""
    layout, missing = model.layout, []
    for row in layout.rows:
        if not any(grad is not None and bool(grad[:, row].any()) for grad in found):
            missing.append(f"token {row}")
    if pooled is not None and observed.gradients([pooled])[0] is None:
        missing.append("the average of tokens")
    if missing:
        raise Misread(
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
    each = pool.flat(grad)[0]
    lengths = grid.tokens, len(each)
    rows = list(aligned.positions(averaged_tokens(layout.pool, grid), *lengths))
    own = aligned.positions(layout.rows, *lengths)
    others = [i for i in range(len(each)) if i not in rows and i not in own]
    size = each[rows].abs().max().clamp_min(torch.finfo(each.dtype).tiny)
    gaps = [(each[rows] - each[rows[0]]).abs().max(), each[others].abs().max() if others else 0]
    worst = float(torch.stack([torch.as_tensor(gap).to(each) for gap in gaps]).max() / size)
    allowed = _EQUAL.get(pooled.dtype, 1e-3)
    if worst > allowed:
        raise Misread(
            f"{model.spec} is read as {model.anatomy.readout!r}, but its output does not depend "
            f"equally on these tokens and on no others (they differ by {worst:.0%})."
        )
    return Fact("difference between the gradients at averaged tokens", worst, allowed)


def _chain(model: Model, observed: Observation, seen: Seen) -> Fact:
    """See that each block gets what the one before it made, and nothing else."""
    worst = 0.0
    for index in range(len(model.anatomy.blocks)):
        _check_arguments(model, observed, seen, index)
    for index in range(1, len(model.anatomy.blocks)):
        tokens, handed = seen.inputs[index], seen.handed[index - 1]
        if tokens is handed:
            continue
        others = [observed.pixels, *(seen.leaving[i] for i in range(index - 1))]
        own, *rest = reaches(projected(tokens), [seen.leaving[index - 1], *others])
        share = _norm(rest) / max(_norm([own]), torch.finfo(torch.float32).tiny)
        if own is None or share > NEGLIGIBLE:
            raise Misread(
                f"block {index} of {model.spec} gets more than what block {index - 1} made (a skip "
                "connection, or a second chain of blocks)."
            )
        worst = max(worst, share)
        _check_order(model, tokens, seen.leaving[index - 1], index)
    return Fact("gradient between blocks that are not neighbours", worst, NEGLIGIBLE)


def _check_arguments(model: Model, observed: Observation, seen: Seen, index: int) -> None:
    """See that what a block is called with beside its tokens does not depend on the image."""
    given = seen.given[index]
    rest = [t for t in (*given.args, *given.kwargs.values()) if isinstance(t, Tensor)]
    nodes = [observed.pixels, *seen.leaving.values()]
    for tensor in rest:
        if tensor.requires_grad and _norm(reaches(projected(tensor), nodes)) > 0:
            raise Misread(
                f"block {index} of {model.spec} gets something of the image beside its tokens (a "
                "skip connection, or conditioning), which a map would leave out."
            )


def _check_order(model: Model, tokens: Tensor, before: Tensor, index: int) -> None:
    found = owners(tokens, before).token
    expected = torch.arange(len(found), device=found.device)
    if not bool(torch.equal(found, expected)):
        raise Misread(
            f"{model.spec} mixes or reorders its tokens between blocks {index - 1} and {index}, so "
            "they cannot be followed to their patches."
        )


def _aligned(tokens: Tensor, last: Tensor, grid: PatchGrid, model: Model) -> Alignment | None:
    """How the sequence lies along the tokens of a step; None if the step has none of them.

    Raises:
        Misread: if it has some of the patches, or in another order.
    """
    found = owners(tokens, last).token.tolist()
    at = [found[position] for position in grid.positions]
    if all(position < 0 for position in at):
        return None
    aligned = None
    if min(at) >= 0:
        aligned = Alignment.of(grid.positions, at, len(found), tokens.shape[1])
    if aligned is None:
        raise Misread(
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
        with without(outputs_of(tail)):
            at = owners(call.query.transpose(1, 2).flatten(2), last).token.tolist()
        (grad,) = observed.gradients([call.output]) if call.output is not None else (None,)
        if grad is None:
            continue
        used = {row for row in range(grad.shape[-2]) if bool(grad[:, :, row].any())}
        if used & {at[position] for position in grid.positions if at[position] >= 0}:
            raise Misread(
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
        raise Misread(
            f"{model.spec} is read as {model.anatomy.readout!r}, but what it averages mixes "
            "patches, so it is no average of patch tokens."
        )
    return aligned


def _list(items: Sequence[int]) -> str:
    return ", ".join(map(str, items[:8])) + (", …" if len(items) > 8 else "")
