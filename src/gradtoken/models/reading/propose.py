"""Reading a model that no family file reads rightly, from what one forward shows.

The blocks are sought among the modules that attend. Which tokens of which block the head reads
shows in the gradient of its output. What is proposed here is verified like any other reading.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from gradtoken.errors import ModelError
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.facts import Misread
from gradtoken.models.layout import TokenLayout
from gradtoken.models.model import Model
from gradtoken.models.reading.blocks import check_sequences
from gradtoken.models.reading.gradients import outputs_of, projected, reaches
from gradtoken.models.reading.observe import (
    Observation,
    inside,
    observe,
    run,
    sample_input,
    with_autograd,
)
from gradtoken.models.reading.owners import owners
from gradtoken.tap.anatomy import Anatomy, Pool
from gradtoken.tap.tap import AttentionCall, Recorder
from gradtoken.tap.watch import Seen

_MOST_LISTS = 4
_MOST_ROWS = 16
"""More tokens than this are not read one by one."""
_SAME = 1e-3


def block_lists(model: Model) -> list[tuple[nn.Module, ...]]:
    """Lists of modules that may be the model's blocks, the likeliest first.

    They are the modules of one kind that make attention calls and are not inside one another. More
    modules are likelier, and so are those around others of the same number. Then come the outermost
    modules that make one attention call each, whatever their kind, and single modules last.

    Raises:
        ModelError: if the model makes no attention call that can be seen.
    """
    tour = _tour(model)
    if not tour.calls:
        raise ModelError(
            f"{model.spec} ({type(model.module).__name__}) is not a Vision Transformer that can be "
            "read: no attention was seen in it, because it has none or computes it by hand; use "
            "scaled_dot_product_attention or nn.MultiheadAttention in it."
        )
    groups: dict[type[nn.Module], list[nn.Module]] = {}
    for module in tour.modules:
        groups.setdefault(type(module), []).append(module)
    lists = [tuple(group) for group in groups.values() if not _nested(group)]
    lists.sort(key=lambda group: (-len(group), -sum(1 for _ in group[0].modules())))
    single = [module for module in tour.modules if tour.count[id(module)] == 1]
    below = {id(part) for m in single for part in m.modules() if part is not m}
    outermost = tuple(module for module in single if id(module) not in below)
    several = [group for group in lists if len(group) > 1]
    alone = [group for group in lists if len(group) == 1]
    found = [*several[:_MOST_LISTS], outermost, *alone[:_MOST_LISTS]]
    return list(dict.fromkeys(group for group in found if group))


class _Tour(Recorder):
    """Notes which modules are at work at each attention call."""

    def __init__(self) -> None:
        super().__init__(queries=False)
        self.place = 0
        self.modules: list[nn.Module] = []
        self.count: dict[int, int] = {}
        self._stack: list[nn.Module] = []
        self._thread = threading.get_ident()

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        for module in self._stack:
            if id(module) not in self.count:
                self.modules.append(module)
            self.count[id(module)] = self.count.get(id(module), 0) + 1
        return super().attend(call, run)

    def enter(self, module: nn.Module, _: Any) -> None:
        if threading.get_ident() == self._thread:
            self._stack.append(module)

    def leave(self, module: nn.Module, *_: Any) -> None:
        if threading.get_ident() == self._thread:
            self._stack.pop()


def _tour(model: Model) -> _Tour:
    tour = _Tour()
    with with_autograd(model), torch.no_grad(), ExitStack() as hooks:
        for module in model.module.modules():
            if module is not model.module:
                hooks.callback(module.register_forward_pre_hook(tour.enter).remove)
                hooks.callback(module.register_forward_hook(tour.leave).remove)
        with tour:
            run(model, sample_input(model))
    return tour


def _nested(group: Sequence[nn.Module]) -> bool:
    ids = {id(module) for module in group}
    return any(id(part) in ids for m in group for part in m.modules() if part is not m)


def propose(
    model: Model, blocks: Sequence[nn.Module], grid_of: Callable[[Model], PatchGrid]
) -> list[Model]:
    """The model's backbones as a forward shows them, each with some of the blocks.

    Args:
        model: with the forward to use; its layout is only asked for the patch size.
        blocks: in the order they are called.
        grid_of: finds the spatial tokens entering the first block of a model.

    Raises:
        ModelError: if what the head reads cannot be followed.
    """
    whole = Anatomy("to be read", tuple(blocks), forward=model.anatomy.forward)
    watched = replace(model, anatomy=whole, layout=replace(model.layout, pool=None), others=())
    observed = observe([watched])
    seen = observed.seen[0]
    check_sequences(watched, seen)
    if sorted(seen.entered) != list(range(len(blocks))):
        raise Misread(
            f"the blocks of {model.spec} run more than once in a forward (test-time augmentation, "
            "or shared weights), so no one pass through them makes its output; explain the plain "
            "model."
        )
    backbones = []
    for chain in _chains(observed, seen):
        part = Anatomy("to be read", tuple(blocks[i] for i in chain), forward=whole.forward)
        backbones.append(_backbone(replace(watched, anatomy=part), observed, chain, grid_of))
    found = [backbone for backbone in backbones if backbone is not None]
    if not found:
        raise Misread(
            f"the output of {model.spec} depends on none of its blocks: it is all zeros, or they "
            "are detached, or computed again in the backward pass (reentrant gradient "
            "checkpointing)."
        )
    return found


def _chains(observed: Observation, seen: Seen) -> Iterator[list[int]]:
    """The blocks in chains, each of which gets what the one before it made."""
    chain = [seen.entered[0]]
    for before, index in pairwise(seen.entered):
        tokens = seen.inputs[index]
        follows = tokens is seen.handed[before]
        if not follows and tokens.requires_grad:
            follows = reaches(projected(tokens), [seen.leaving[before]])[0] is not None
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
    seen = observed.seen[0]
    found = observed.gradients([seen.leaving[index] for index in chain])
    read = [place for place, grad in enumerate(found) if grad is not None]
    if not read:
        return None
    blocks = model.anatomy.blocks[: read[-1] + 1]
    anatomy = replace(model.anatomy, blocks=blocks, reads=tuple(read))
    model = replace(model, anatomy=anatomy)
    grid = grid_of(model)
    last = seen.leaving[chain[read[-1]]]
    tail = _attention_after(observed, last)
    direct = observed.gradients([seen.leaving[chain[i]] for i in read], tail)
    rows = sorted({row for grad in direct if grad is not None for row in _rows(grad)})
    layout = TokenLayout(model.layout.patch, len(grid.others), tuple(rows))
    if len(rows) <= _MOST_ROWS and not set(rows) & set(grid.positions):
        if not rows and not tail:
            return None
        words = _words(rows, read, len(blocks), bool(tail))
        return replace(model, anatomy=replace(anatomy, readout=words), layout=layout)
    for grad in direct[:-1]:
        if grad is not None and set(_rows(grad)) & set(grid.positions):
            raise Misread(
                f"the head of {model.spec} reads the patches of several blocks, which cannot be "
                "followed; use a head that reads them from the last block, or class tokens."
            )
    early = sorted({row for grad in direct[:-1] if grad is not None for row in _rows(grad)})
    return _averaging(model, replace(layout, readout=tuple(early)), grid)


def _attention_after(observed: Observation, last: Tensor) -> list[Tensor]:
    """What the attention calls between the last block's output and the model's made.

    Another chain's blocks may run after it, so that the place of a call does not tell.
    """
    outputs = outputs_of(observed.calls[0])
    after = [output for output in outputs if reaches(projected(output), [last])[0] is not None]
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
        words.insert(0, _tokens(rows))
    text = " and ".join(words)
    if len(read) == 1:
        return text
    if list(read) == list(range(depth - len(read), depth)):
        return f"{text} of the last {len(read)} blocks"
    return f"{text} of blocks {', '.join(map(str, read))}"


def _tokens(rows: Sequence[int]) -> str:
    return "class token" if len(rows) == 1 else f"{len(rows)} class tokens"


@dataclass
class _Outputs:
    """What modules after the last block made, call by call."""

    seen: list[tuple[nn.Module, int, Tensor]] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)

    def hook(self, module: nn.Module, _: Any, output: Any) -> Tensor | None:
        call = self.counts.get(id(module), 0)
        self.counts[id(module)] = call + 1
        if isinstance(output, Tensor) and output.ndim == 3 and output.requires_grad:
            self.seen.append((module, call, output))
            return output.clone()
        return None


def _averaging(model: Model, layout: TokenLayout, grid: PatchGrid) -> Model:
    """The model with the place where its head averages: where the patches matter equally."""
    blocks, outputs = model.anatomy.blocks, _Outputs()
    within = inside(blocks)
    modules = [part for part in model.module.modules() if id(part) not in within]
    modules = [part for part in modules if not list(part.children())]

    def hooks(stack: ExitStack) -> None:
        for part in modules:
            stack.callback(part.register_forward_hook(outputs.hook).remove)

    observed = observe([model], hooks=hooks)
    last = observed.seen[0].leaving[len(blocks) - 1]
    places = [(blocks[-1], -1, observed.seen[0].handed[len(blocks) - 1]), *outputs.seen]
    for module, call, tokens in places:
        found = _average_at(observed, tokens, last, grid)
        if found is None:
            continue
        rows = tuple(sorted({*found[0], *layout.rows}))
        whole = found[1]
        words = "mean of all tokens" if whole else "mean of patch tokens"
        if rows:
            words = f"{_tokens(rows)} and {words}"
        if len(model.anatomy.reads) > 1:
            words = f"{words}, and class tokens of {len(model.anatomy.reads) - 1} earlier blocks"
        times = outputs.counts.get(id(module), 0)
        pool = Pool(module, call=call if call < 0 else call - times)
        return replace(
            model,
            anatomy=replace(model.anatomy, readout=words, pool=pool),
            layout=replace(layout, readout=rows, pool=0 if whole else max(layout.prefix, 1)),
        )
    raise Misread(
        f"{model.spec} ({type(model.module).__name__}) reads its class from all tokens, but not as "
        "their average, so its readout cannot be made out."
    )


def _average_at(
    observed: Observation, tokens: Tensor, last: Tensor, grid: PatchGrid
) -> tuple[tuple[int, ...], bool] | None:
    """Other tokens that the head reads beside an average, and whether that is of all tokens; None
    if it does not average here."""
    (grad,) = observed.gradients([tokens])
    if grad is None or len(grad) != 1:
        return None
    found = owners(tokens, last).token.tolist()
    at = [found[position] for position in grid.positions]
    if min(at) < 0:
        return None
    reference = grad[0, at[0]]
    size = reference.abs().max()
    same = (grad[0] - reference).abs().amax(-1) <= _SAME * size
    if not float(size) or not bool(same[at].all()):
        return None
    others = [i for i in grid.others if found[i] >= 0]
    whole = bool(others) and all(bool(same[found[i]]) for i in others)
    rows = [i for i in others if not whole and bool(grad[0, found[i]].abs().any())]
    return tuple(rows), whole
