"""Reading a model that its family does not read right, from one forward.

The blocks are among the modules that attend. The gradient of the output shows which tokens of which
block the head reads. A proposed reading is verified like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from torch import Tensor, nn

from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.layout import TokenLayout
from gradtoken.models.model import Model
from gradtoken.models.reading.averages import averaging, class_tokens
from gradtoken.models.reading.blocks import check_sequences, check_whole
from gradtoken.models.reading.gradients import gradients_at, outputs_of, random_projection
from gradtoken.models.reading.observe import (
    Observation,
    observe,
)
from gradtoken.models.verification import ReadingError
from gradtoken.tap.anatomy import Anatomy
from gradtoken.tap.hooks import BlockRecord

_MOST_ROWS = 16
"""More tokens than this are not read one by one."""


def propose(
    model: Model, blocks: Sequence[nn.Module], grid_of: Callable[[Model], PatchGrid]
) -> list[Model]:
    """The model's backbones as a forward shows them, each with some of the blocks.

    Args:
        model: with the forward to use; of its layout only the patch size is used.
        blocks: in the order they are called.
        grid_of: locates the spatial tokens entering the first block of a model.

    Raises:
        ModelError: if what the head reads cannot be followed.
    """
    whole = Anatomy("to be read", tuple(blocks), forward=model.anatomy.forward)
    whole_model = replace(model, anatomy=whole, layout=replace(model.layout, pool=None), others=())
    observed = observe([whole_model])
    record = observed.records[0]
    check_sequences(whole_model, record)
    check_whole(whole_model, record)
    if sorted(record.order) != list(range(len(blocks))):
        raise ReadingError(
            f"the blocks of {model.spec} run more than once in a forward (test-time augmentation, "
            "or shared weights), so no one pass through them makes its output; explain the plain "
            "model."
        )
    backbones = []
    for chain in _chains(record):
        part = Anatomy("to be read", tuple(blocks[i] for i in chain), forward=whole.forward)
        backbones.append(_backbone(replace(whole_model, anatomy=part), observed, chain, grid_of))
    read = [backbone for backbone in backbones if backbone is not None]
    if not read:
        raise ReadingError(
            f"the output of {model.spec} depends on none of its blocks: it is all zeros, or they "
            "are detached, or computed again in the backward pass (reentrant gradient "
            "checkpointing)."
        )
    return read


def _chains(record: BlockRecord) -> Iterator[list[int]]:
    """The blocks in chains, in each of which a block gets the output of the one before it."""
    chain = [record.order[0]]
    for before, index in pairwise(record.order):
        tokens = record.inputs[index]
        follows = tokens is record.forwarded[before]
        if not follows and tokens.requires_grad:
            follows = (
                gradients_at(random_projection(tokens), [record.outputs[before]])[0] is not None
            )
        if not follows:
            yield chain
            chain = []
        chain.append(index)
    yield chain


def _backbone(
    model: Model,
    observed: Observation,
    chain: list[int],
    grid_of: Callable[[Model], PatchGrid],
) -> Model | None:
    """One chain of blocks with its readout; None if the output does not depend on it."""
    record = observed.records[0]
    grads = observed.gradients([record.outputs[index] for index in chain])
    read = [place for place, grad in enumerate(grads) if grad is not None]
    if not read:
        return None
    blocks = model.anatomy.blocks[: read[-1] + 1]
    anatomy = replace(model.anatomy, blocks=blocks, reads=tuple(read))
    model = replace(model, anatomy=anatomy)
    grid = grid_of(model)
    last = record.outputs[chain[read[-1]]]
    tail = _attention_after(observed, last)
    direct = observed.gradients([record.outputs[chain[i]] for i in read], tail)
    rows = sorted({row for grad in direct if grad is not None for row in _rows(grad)})
    layout = TokenLayout(model.layout.patch, len(grid.others), tuple(rows))
    if len(rows) <= _MOST_ROWS and not set(rows) & set(grid.positions):
        if not rows and not tail:
            return None
        words = _words(rows, read, len(blocks), bool(tail))
        return replace(model, anatomy=replace(anatomy, readout=words), layout=layout)
    for grad in direct[:-1]:
        if grad is not None and set(_rows(grad)) & set(grid.positions):
            raise ReadingError(
                f"the head of {model.spec} reads the patches of several blocks, which cannot be "
                "followed; use a head that reads them from the last block, or class tokens."
            )
    early = sorted({row for grad in direct[:-1] if grad is not None for row in _rows(grad)})
    return averaging(model, replace(layout, readout=tuple(early)), grid)


def _attention_after(observed: Observation, last: Tensor) -> list[Tensor]:
    """The outputs of the attention calls between the last block and the model's output.

    Another chain's blocks may run after it, so that the place of a call does not tell.
    """
    outputs = outputs_of(observed.calls[0])
    after = [
        output
        for output in outputs
        if gradients_at(random_projection(output), [last])[0] is not None
    ]
    return [
        output
        for output, grad in zip(after, observed.gradients(after), strict=True)
        if grad is not None
    ]


def _rows(grad: Tensor) -> list[int]:
    return [int(row) for row in grad[0].abs().amax(-1).nonzero()[:, 0]]


def _words(rows: Sequence[int], read: Sequence[int], depth: int, tail: bool) -> str:
    words = [] if not tail else ["attention pool"]
    if rows:
        words.insert(0, class_tokens(rows))
    text = " and ".join(words)
    if len(read) == 1:
        return text
    if list(read) == list(range(depth - len(read), depth)):
        return f"{text} of the last {len(read)} blocks"
    return f"{text} of blocks {', '.join(map(str, read))}"
