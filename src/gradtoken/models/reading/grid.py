"""The patch grid of a model's tokens, located once for each input size."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import Tensor

from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.layout import TokenLayout
from gradtoken.models.model import Model
from gradtoken.models.reading.embed import Embedder
from gradtoken.models.reading.last_stage import examine_last_stage
from gradtoken.models.reading.observe import noise_of, with_autograd
from gradtoken.models.reading.probe import probe_patches
from gradtoken.models.verification import LocatedGrid, ReadingError, Shape


def grid_of(model: Model, images: Tensor) -> PatchGrid:
    """The spatial tokens that a model makes of images (B, C, H, W) of one size.

    Raises:
        ModelError: if the tokens make no grid.
    """
    return locate_grid(model, images).grid


def locate_grid(model: Model, images: Tensor) -> LocatedGrid:
    """The same with how it was located; computed once for each size.

    Raises:
        ModelError: if the tokens make no grid.
    """
    assert model.reading is not None
    shape = tuple(images.shape[1:])
    located = model.reading.grids.get(shape)
    if located is None:
        located = _locate(model, shape)
        model.reading.grids[shape] = located
    return located


def grid_of_proposed(model: Model, *, before_attention: bool) -> PatchGrid:
    """The spatial tokens entering the first block of a model that is not verified yet.

    Args:
        model: with proposed blocks.
        before_attention: whether there must be no attention before these blocks.

    Raises:
        ModelError: if the tokens make no grid.
        ReadingError: if there is attention before the blocks and must not be.
    """
    shape = tuple(model.preprocess.sample().shape)
    return _locate(replace(model, reading=None), shape, before_attention=before_attention).grid


def _locate(model: Model, shape: Shape, *, before_attention: bool = False) -> LocatedGrid:
    noise = noise_of(model, shape)
    claimed = partial(claimed_grid, model.layout, shape)
    if not model.anatomy.blocks:
        return examine_last_stage(model, noise, claimed).located
    embed = Embedder(model)
    with with_autograd(model):
        start = embed.traced(noise)
        if before_attention and not start.local:
            raise ReadingError(
                f"{model.spec} attends before the first of the modules that were taken for its "
                f"blocks ({type(model.anatomy.blocks[0]).__name__}), which a map would leave out."
            )
        located = probe_patches(embed, start, claimed=claimed, spec=model.spec)
        if located.grid.order is not None:
            mirrored = embed.traced(noise.flip(-1))
            again = probe_patches(embed, mirrored, claimed=claimed, spec=model.spec)
            if again.grid.order != located.grid.order:
                raise ReadingError(
                    f"the order of the tokens of {model.spec} is drawn at random or depends on the "
                    "image (masked training, or tokens that are sorted), so no map can be laid "
                    "out; turn that off."
                )
        return located


def claimed_grid(layout: TokenLayout, shape: Shape, tokens: int) -> PatchGrid:
    """The grid that a layout claims for an input's shape and a number of tokens.

    Raises:
        ModelError: if it does not fit them.
    """
    size = (shape[-2], shape[-1])
    return PatchGrid(layout.grid_for(size, tokens), size, tokens)
