"""Is a model's reading right? Verified on the model's own gradient, in one forward on noise.

The forward is cut behind every block, so that a gradient arrives where the output really depends
on the blocks. The reading is right if the output depends on the tokens that it names and on nothing
else: no other token, no other block, no pixel by a way around the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradtoken.alignment import Alignment
from gradtoken.errors import ModelError
from gradtoken.models.model import Model
from gradtoken.models.observe import Observation, outputs_of, projected, reaches, without
from gradtoken.models.owners import owners
from gradtoken.patch_grid import PatchGrid, averaged_tokens
from gradtoken.precision import wide
from gradtoken.tap import TAIL, AttentionCall
from gradtoken.watch import Seen

NEGLIGIBLE = 1e-4
"""Of the output's gradient, the share that may lie where the reading has none."""


_EQUAL = {torch.float16: 0.02, torch.bfloat16: 0.1}


class Misread(ModelError):
    """A reading that the model's own gradient contradicts."""


@dataclass(frozen=True)
class Fact:
    """One thing verified.

    Args:
        what: in words.
        value: the number measured.
        allowed: the largest value (with `least`, the smallest) that confirms the reading.
        least: whether `allowed` is a lower bound.
    """

    what: str
    value: float
    allowed: float
    least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the number confirms the reading."""
        return self.value >= self.allowed if self.least else self.value <= self.allowed


@dataclass(frozen=True)
class Verified:
    """What verification found of one backbone.

    Args:
        facts: what was verified, with numbers.
        tail: how the sequence lies along the tokens that each attention after the last block
            attends to; None for one that attends to no tokens of the sequence.
        pooled: how it lies along the tokens that the head averages.
        blank: whether the output depends on nothing at all, so that nothing could be verified.
    """

    facts: tuple[Fact, ...]
    tail: tuple[Alignment | None, ...]
    pooled: Alignment
    blank: bool = False


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


def check_blocks(model: Model, seen: Seen, calls: Sequence[AttentionCall], start: int = 0) -> None:
    """See that each block ran once, in order, on as many tokens as the first, and attended to all.

    Raises:
        Misread: saying what happened instead.
    """
    depth = len(model.anatomy.blocks)
    if not depth:
        return
    check_sequences(model, seen)
    if seen.entered != list(range(depth)):
        times = max((seen.entered.count(index) for index in set(seen.entered)), default=0)
        what = (
            f"ran {times} times in one forward (test-time augmentation, or shared weights)"
            if times > 1
            else f"ran {len(seen.entered)} times for {depth} blocks, or in another order"
        )
        raise Misread(
            f"the blocks of {model.spec} {what}, so no one pass through them makes its output; "
            "explain the plain model."
        )
    if not model.anatomy.attends:
        return
    images = next(iter(seen.inputs.values())).shape[0]
    if any(call.key.ndim != 4 or call.key.shape[0] != images for call in calls if call.place >= 0):
        raise Misread(
            f"the blocks of {model.spec} attend with their heads or tokens folded into the images, "
            "so no image's attention can be told; give scaled_dot_product_attention tensors of "
            "shape (images, heads, tokens, channels)."
        )
    counts = {call.place: call.key.shape[-2] for call in calls if call.place >= 0}
    missing = depth - start - len(counts)
    if missing:
        raise Misread(
            f"{model.spec} has {depth - start} blocks but attention was seen in "
            f"{depth - start - missing}, because it computes attention by hand; build it with "
            "fused attention (scaled_dot_product_attention or nn.MultiheadAttention)."
        )
    lengths = {*seen.lengths, *counts.values()}
    if len(lengths) > 1:
        raise Misread(
            f"the number of tokens in the blocks of {model.spec} changes (from {max(lengths)} to "
            f"{min(lengths)}): tokens are pruned, merged or added on the way, so later ones are "
            "not the patches they began as; explain the model with all tokens kept."
        )


def check_sequences(model: Model, seen: Seen) -> None:
    """See that the blocks were called with one sequence of tokens for each image.

    Raises:
        Misread: if they were not called, or with something else.
    """
    shapes = [tuple(t.shape) for t in (*seen.inputs.values(), *seen.leaving.values())]
    if not shapes:
        raise Misread(f"{model.spec} does not run the modules that should be its blocks.")
    for shape in shapes:
        if len(shape) == 3 and shape[1] == 1 and shape[0] > 1:
            raise Misread(
                f"the blocks of {model.spec} take tokens as (tokens, images, channels), with the "
                "images second, which is not supported; use the model in open_clip, timm or "
                "transformers, where the images come first."
            )
        if len(shape) != 3:
            raise Misread(
                f"the modules that should be the blocks of {model.spec} take or make tensors of "
                f"shape {shape}, and no tokens (images, tokens, channels)."
            )


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


def _outside(found: Sequence[Tensor | None], rows: Sequence[int]) -> float:
    """The size of some gradients at other tokens than some rows."""
    outside = []
    for grad in found:
        if grad is not None:
            grad = grad.clone()
            grad[:, list(rows)] = 0
            outside.append(grad)
    return _norm(outside)


def _norm(found: Sequence[Tensor | None]) -> float:
    return float(sum(float(grad.norm()) ** 2 for grad in found if grad is not None)) ** 0.5


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
