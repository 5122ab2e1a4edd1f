"""Verifying how each backbone of a model is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.layout import TokenLayout
from gradtoken.models.model import Model
from gradtoken.models.reading.block_checkpointing import check_no_recomputation
from gradtoken.models.reading.grid import claimed_grid, locate_grid
from gradtoken.models.reading.last_stage import examine_last_stage
from gradtoken.models.reading.mixing import attention_alone_mixes, attention_in_place
from gradtoken.models.reading.observe import Observation, observe, sample_input
from gradtoken.models.reading.stream_step import choose_step
from gradtoken.models.reading.verify import verify
from gradtoken.models.verification import Fact, LocatedGrid, Reading, ReadingError, Structure


def structure_of(module: nn.Module) -> Structure:
    """The names of a module's parts and their classes, which a copy of it has too."""
    return tuple((name, type(part)) for name, part in module.named_modules())


def verify_backbones(backbones: Sequence[Model]) -> list[Model]:
    """The backbones of a model with readings, if these are right.

    Args:
        backbones: the model, each time with the blocks of another of its backbones.

    Raises:
        ReadingError: if one is wrong.
    """
    backbones = [
        backbone
        if backbone.reading
        else replace(backbone, reading=Reading(structure_of(backbone.module)))
        for backbone in backbones
    ]
    noise = sample_input(backbones[0])
    if not backbones[0].anatomy.blocks:
        return [_verify_last_stage(backbones[0], noise)]
    located = [locate_grid(backbone, noise) for backbone in backbones]
    backbones = [
        replace(backbone, layout=_layout_of_grid(backbone, grid))
        for backbone, grid in zip(backbones, located, strict=True)
    ]
    observed = observe(backbones)
    grids = [item.grid for item in located]
    results = verify(backbones, observed, grids)
    verified = []
    for number, (backbone, result) in enumerate(zip(backbones, results, strict=True)):
        assert backbone.reading is not None
        backbone.reading.outputs = observed.output.shape[1]
        facts = (*result.facts, _grid_fact(located[number]))
        backbone.reading.update(replace(result, facts=facts))
        verified.append(_verify_blocks(backbone, observed, number, grids[number]))
    _check_same_cells(verified[0].spec, grids)
    return verified


def _verify_blocks(model: Model, observed: Observation, number: int, grid: PatchGrid) -> Model:
    """One backbone with what its blocks show, and a step to run them on the readout."""
    reading, record = model.reading, observed.records[number]
    assert reading is not None
    reading.differentiable = record.differentiable
    reading.writes_in_place = observed.writes_in_place
    check_no_recomputation(model, record)
    if model.layout.rows and not reading.blank:
        model = choose_step(model, observed, number)
    if model.anatomy.attends:
        moved = attention_in_place(model, record, observed.calls[number])
        mixed = attention_alone_mixes(model, record, grid)
        reading.facts = (*reading.facts, moved, mixed)
    return model


def _verify_last_stage(model: Model, noise: Tensor) -> Model:
    """A model that is followed after its last stage only, with its reading."""
    assert model.reading is not None
    shape = tuple(noise.shape[1:])
    examined = examine_last_stage(model, noise, partial(claimed_grid, model.layout, shape))
    model.reading.grids[shape] = examined.located
    model.reading.outputs = examined.outputs
    model.reading.writes_in_place = examined.writes_in_place
    facts = (*examined.verified.facts, _grid_fact(examined.located))
    model.reading.update(replace(examined.verified, facts=facts))
    return model


def _layout_of_grid(model: Model, located: LocatedGrid) -> TokenLayout:
    """The layout with as many prefix tokens as the model has.

    Raises:
        ReadingError: if it says another patch or number of tokens than the pixels show.
    """
    layout, grid = model.layout, located.grid
    if layout.grid is not None and tuple(layout.grid) != grid.shape:
        raise ReadingError(
            f"the layout of {model.spec} says a {layout.grid[0]}x{layout.grid[1]} grid, but its "
            f"tokens depend on pixels as a {grid.shape[0]}x{grid.shape[1]} grid does."
        )
    if layout.pool:
        layout = replace(
            layout, pool=len(grid.others) if layout.pool == layout.prefix else layout.pool
        )
    return replace(layout, prefix=len(grid.others))


def _grid_fact(located: LocatedGrid) -> Fact:
    """How the grid was located, and how far the tokens are from it."""
    names = {
        "exact": "distance of patches from their places in the grid, in patches (every pixel)",
        "measured": "distance of patches from their places in the grid, in patches (noise)",
    }
    if located.how in names:
        return Fact(names[located.how], located.value, located.allowed)
    name = "correlation of the patches' places with those measured"
    return Fact(name, located.value, located.allowed, True)


def _check_same_cells(spec: str, grids: Sequence[PatchGrid]) -> None:
    if len({(grid.shape, grid.cells) for grid in grids}) > 1:
        shapes = " and ".join(f"{grid.shape[0]}x{grid.shape[1]}" for grid in grids)
        raise ReadingError(
            f"{spec} has several backbones whose patches differ ({shapes}), so their maps cannot "
            "be summed; explain each by itself."
        )
