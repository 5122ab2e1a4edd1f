"""How a model is read, verified on the model itself when it is wrapped, and its patches found, once
for each input size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from gradtoken.errors import ModelError
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.facts import Fact, Misread, Probed, Reading, Shape, Structure
from gradtoken.models.layout import TokenLayout
from gradtoken.models.model import Model
from gradtoken.models.reading.embed import Embedder
from gradtoken.models.reading.last_stage import examine
from gradtoken.models.reading.mixing import attention_alone_mixes, attention_in_place
from gradtoken.models.reading.observe import (
    FAILURES,
    Observation,
    noise_of,
    observe,
    sample_input,
    with_autograd,
)
from gradtoken.models.reading.probe import probe_patches
from gradtoken.models.reading.propose import block_lists, propose
from gradtoken.models.reading.recomputing import check_inside
from gradtoken.models.reading.verify import verify
from gradtoken.tap.anatomy import STEPS
from gradtoken.tap.frozen_context import STREAM_TOLERANCE, run_stream, stream_gap
from gradtoken.tap.known_linear import KnownLinears


def read(model: Model, *, given: bool = False, unreadable: ModelError | None = None) -> Model:
    """The model with a reading that is verified on its own gradient and pixels.

    Args:
        model: read as its family file, or the user's layout, says.
        given: whether the layout is the user's, so that no other is taken.
        unreadable: why the model's family file could not read it.

    Raises:
        ModelError: if the reading is wrong, and none that is right was found.
    """
    with verifying(model):
        first, *others = _first_right(model, given=given, unreadable=unreadable)
        if given:
            _check_given([first, *others], model.layout)
    return replace(first, others=tuple(others))


def _first_right(model: Model, *, given: bool, unreadable: ModelError | None) -> list[Model]:
    """The model's backbones by the first reading that is right.

    Raises:
        ModelError: if none is.
    """
    anatomy = model.anatomy
    claimed = bool(anatomy.blocks) or anatomy.pool is not None
    if not claimed:
        return _reread(model, unreadable, given=given)
    try:
        return _verified([replace(model, others=()), *model.others])
    except Misread as error:
        if given:
            raise
        return _reread(model, error, given=False)


@contextmanager
def verifying(model: Model) -> Iterator[None]:
    """Evaluation mode, with gradients as they are without the caller's `no_grad`, `inference_mode`
    or autocast."""
    with (
        model.evaluating(),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(model.device.type, enabled=False),
    ):
        yield


def current(model: Model) -> Model:
    """The model with its reading, if that still is its module's.

    Raises:
        ModelError: if the module's parts were exchanged since, or the reading turns out wrong.
    """
    if model.reading is None:
        model = read(model, given=True)
    assert model.reading is not None
    parts = set(model.module.modules())
    blocks = [block for one in (model, *model.others) for block in one.anatomy.blocks]
    exchanged = any(block not in parts for block in blocks)
    if exchanged or model.reading.structure != _structure(model.module):
        raise ModelError(
            f"parts of {model.spec} were exchanged after it was wrapped, so it may be read "
            "otherwise now; wrap it again."
        )
    if model.reading.blank:
        with verifying(model):
            _verified([replace(model, others=()), *model.others])
    return model


def grid_of(model: Model, images: Tensor) -> PatchGrid:
    """The spatial tokens that a model makes of images (B, C, H, W) of one size."""
    return probed(model, images).grid


def probed(model: Model, images: Tensor) -> Probed:
    """The same, with how it was found; found out once for each size.

    Raises:
        ModelError: if the tokens make no grid.
    """
    assert model.reading is not None
    shape = tuple(images.shape[1:])
    found = model.reading.probed.get(shape)
    if found is None:
        found = _probe(model, shape)
        model.reading.probed[shape] = found
    return found


def _probe(model: Model, shape: Shape) -> Probed:
    noise = noise_of(model, shape)
    claimed = partial(_claimed, model.layout, shape)
    if not model.anatomy.blocks:
        return examine(model, noise, claimed).probed
    embed = Embedder(model)
    with with_autograd(model):
        found = probe_patches(embed, embed.traced(noise), claimed=claimed, spec=model.spec)
        if found.grid.order is not None:
            mirrored = embed.traced(noise.flip(-1))
            again = probe_patches(embed, mirrored, claimed=claimed, spec=model.spec)
            if again.grid.order != found.grid.order:
                raise Misread(
                    f"the order of the tokens of {model.spec} is drawn at random or depends on the "
                    "image (masked training, or tokens that are sorted), so no map can be laid "
                    "out; turn that off."
                )
        return found


def _claimed(layout: TokenLayout, shape: Shape, tokens: int) -> PatchGrid:
    size = (shape[-2], shape[-1])
    return PatchGrid(layout.grid_for(size, tokens), size, tokens)


def _structure(module: nn.Module) -> Structure:
    """The names of a module's parts and their classes, which a copy of it has too."""
    return tuple((name, type(part)) for name, part in module.named_modules())


def _verified(backbones: Sequence[Model]) -> list[Model]:
    """The backbones with readings, if these are right.

    Raises:
        Misread: if one is not.
    """
    backbones = [
        one if one.reading else replace(one, reading=Reading(_structure(one.module)))
        for one in backbones
    ]
    like = sample_input(backbones[0])
    if not backbones[0].anatomy.blocks:
        return [_examined(backbones[0], like)]
    found = [probed(one, like) for one in backbones]
    backbones = [
        replace(one, layout=_agreed(one, each)) for one, each in zip(backbones, found, strict=True)
    ]
    observed = observe(backbones)
    grids = [each.grid for each in found]
    results = verify(backbones, observed, grids)
    read = []
    for number, (model, result) in enumerate(zip(backbones, results, strict=True)):
        assert model.reading is not None
        model.reading.outputs = observed.output.shape[1]
        model.reading.differentiable = observed.seen[number].differentiable
        model.reading.writes_in_place = observed.writes_in_place
        model.reading.take(replace(result, facts=(*result.facts, _order(found[number]))))
        check_inside(model, observed.seen[number])
        if model.layout.rows and not result.blank:
            model = _with_step(model, observed, number)
        if model.anatomy.attends:
            seen, calls = observed.seen[number], observed.calls[number]
            _note(model, attention_in_place(model, seen, calls))
            _note(model, attention_alone_mixes(model, seen, grids[number]))
        read.append(model)
    _check_same_cells(read[0].spec, grids)
    return read


def _note(model: Model, fact: Fact) -> None:
    """Keep one more thing that was verified."""
    assert model.reading is not None
    model.reading.facts = (*model.reading.facts, fact)


def _examined(model: Model, like: Tensor) -> Model:
    """A model that is followed after its last stage only, with its reading."""
    assert model.reading is not None
    shape = tuple(like.shape[1:])
    found = examine(model, like, partial(_claimed, model.layout, shape))
    model.reading.probed[shape] = found.probed
    model.reading.outputs = found.outputs
    model.reading.writes_in_place = found.writes_in_place
    facts = (*found.verified.facts, _order(found.probed))
    model.reading.take(replace(found.verified, facts=facts))
    return model


def _agreed(model: Model, found: Probed) -> TokenLayout:
    """The layout with as many prefix tokens as there are.

    Raises:
        Misread: if it says another patch or number of tokens than the pixels show.
    """
    layout, grid = model.layout, found.grid
    if layout.grid is not None and tuple(layout.grid) != grid.shape:
        raise Misread(
            f"the layout of {model.spec} says a {layout.grid[0]}x{layout.grid[1]} grid, but its "
            f"tokens depend on pixels as a {grid.shape[0]}x{grid.shape[1]} grid does."
        )
    if layout.pool:
        layout = replace(
            layout, pool=len(grid.others) if layout.pool == layout.prefix else layout.pool
        )
    return replace(layout, prefix=len(grid.others))


def _order(found: Probed) -> Fact:
    words = {
        "exact": "distance of patches from their places in the grid, in patches (every pixel)",
        "measured": "distance of patches from their places in the grid, in patches (noise)",
    }
    if found.how in words:
        return Fact(words[found.how], found.value, found.allowed)
    words_for = "correlation of the patches' places with those measured"
    return Fact(words_for, found.value, found.allowed, True)


def _with_step(model: Model, observed: Observation, number: int) -> Model:
    """The model with a way to run its blocks on the readout alone, if one leads where it leads."""
    seen = observed.seen[number]
    calls = [call for call in observed.calls[number] if call.place >= 0]
    allowed = STREAM_TOLERANCE.get(calls[0].key.dtype, 0.1) if calls else 0.0
    gaps = {}
    known, apart = KnownLinears([]), model.writes_in_place
    with with_autograd(model), torch.enable_grad():
        for step in dict.fromkeys((model.anatomy.step, *STEPS)):
            anatomy = replace(model.anatomy, step=step)
            try:
                stream = run_stream(
                    anatomy, model.layout.rows, seen, calls, known, apart=apart, compare=True
                )
            except FAILURES:
                continue
            gaps[step] = stream_gap(stream, seen, model.layout.rows)
            if gaps[step] <= allowed:
                break
    if not gaps:
        assert model.reading is not None
        model.reading.stream = False
        return model
    best = min(gaps, key=lambda step: gaps[step])
    fact = Fact("difference between the readout's own stream and the model", gaps[best], allowed)
    _note(model, fact)
    assert model.reading is not None
    model.reading.stream = gaps[best] <= allowed
    return replace(model, anatomy=replace(model.anatomy, step=best))


def _check_same_cells(spec: str, grids: Sequence[PatchGrid]) -> None:
    if len({(grid.shape, grid.cells) for grid in grids}) > 1:
        shapes = " and ".join(f"{grid.shape[0]}x{grid.shape[1]}" for grid in grids)
        raise Misread(
            f"{spec} has several backbones whose patches differ ({shapes}), so their maps cannot "
            "be summed; explain each by itself."
        )


def _reread(model: Model, first: ModelError | None, *, given: bool) -> list[Model]:
    """Another reading, proposed from what the model shows.

    Args:
        first: why the reading of its family file is wrong.
        given: whether the layout is the user's, and must agree.

    Raises:
        ModelError: saying why the first reading is wrong, and why none else was found.
    """
    reasons = [] if first is None else [first]
    own = [model.anatomy.blocks] if model.anatomy.blocks else []
    try:
        for blocks in dict.fromkeys((*own, *block_lists(model))):
            grid_of_blocks = _grid_entering if blocks in own else _grid_before_attention
            try:
                found = _verified(propose(model, blocks, grid_of_blocks))
            except Misread as error:
                reasons.append(error)
                continue
            return [_as_laid_out(one, model.layout) for one in found] if given else found
    except ModelError as error:
        reasons.append(error)
    if first is not None and not isinstance(first, Misread):
        raise first
    shown = reasons[:1] if first is None else reasons[:2]
    raise ModelError(" ".join(dict.fromkeys(str(reason) for reason in shown))) from None


def _check_given(backbones: Sequence[Model], layout: TokenLayout) -> None:
    """See that a layout says what the pixels show.

    Raises:
        ModelError: if it does not.
    """
    for model in backbones:
        like = sample_input(model)
        grid = grid_of(model, like)
        said = layout.grid_for((like.shape[2], like.shape[3]), grid.tokens)
        if said != grid.shape:
            raise ModelError(
                f"the layout given for {model.spec} says a {said[0]}x{said[1]} grid, but its "
                f"tokens depend on pixels as a {grid.shape[0]}x{grid.shape[1]} grid does."
            )


def _as_laid_out(model: Model, layout: TokenLayout) -> Model:
    """The model with the user's layout, if it says what the model shows.

    Raises:
        ModelError: if it does not.
    """
    shown = model.layout
    pairs = {
        "prefix tokens": (layout.prefix, shown.prefix),
        "readout": (layout.rows, shown.rows),
        "pool": (layout.pool is None, shown.pool is None),
    }
    for what, (said, found) in pairs.items():
        if said != found:
            raise ModelError(
                f"the layout given for {model.spec} says {what} {said}, but the model shows "
                f"{found}: {shown}."
            )
    return replace(model, layout=layout)


def _grid_before_attention(model: Model) -> PatchGrid:
    """The same of modules that nobody says are all of the blocks.

    Raises:
        Misread: if there is attention before them.
    """
    with with_autograd(model):
        local = Embedder(model).traced(sample_input(model)).local
    if not local:
        raise Misread(
            f"{model.spec} attends before the first of the modules that were taken for its blocks "
            f"({type(model.anatomy.blocks[0]).__name__}), which a map would leave out."
        )
    return _grid_entering(model)


def _grid_entering(model: Model) -> PatchGrid:
    model = replace(model, reading=Reading(_structure(model.module)))
    return grid_of(model, sample_input(model))
