"""Reading a model: verified when it is wrapped, and proposed anew where its family is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch

from gradtoken.errors import ModelError
from gradtoken.models.layout import TokenLayout
from gradtoken.models.model import Model
from gradtoken.models.reading.backbones import structure_of, verify_backbones
from gradtoken.models.reading.candidates import block_lists
from gradtoken.models.reading.grid import grid_of, grid_of_proposed
from gradtoken.models.reading.observe import sample_input
from gradtoken.models.reading.propose import propose
from gradtoken.models.verification import ReadingError


def read(
    model: Model, *, fixed_layout: bool = False, unreadable: ModelError | None = None
) -> Model:
    """The model with a reading that is verified by its own gradient and pixels.

    Args:
        model: with the anatomy and layout of its family or the user.
        fixed_layout: whether the layout is the user's, so that no other is tried.
        unreadable: why the model's family could not read it.

    Raises:
        ModelError: if the reading is wrong, and no other verifies.
    """
    with verifying(model):
        first, *others = _read_backbones(model, fixed_layout=fixed_layout, unreadable=unreadable)
        if fixed_layout:
            _check_layout([first, *others], model.layout)
    return replace(first, others=tuple(others))


def _read_backbones(
    model: Model, *, fixed_layout: bool, unreadable: ModelError | None
) -> list[Model]:
    """The model's backbones by the first reading that verifies.

    Raises:
        ModelError: if none does.
    """
    anatomy = model.anatomy
    claimed = bool(anatomy.blocks) or anatomy.pool is not None
    if not claimed:
        return _reread(model, unreadable, fixed_layout=fixed_layout)
    try:
        return verify_backbones([replace(model, others=()), *model.others])
    except ReadingError as error:
        if fixed_layout:
            raise
        return _reread(model, error, fixed_layout=False)


@contextmanager
def verifying(model: Model) -> Iterator[None]:
    """Evaluation mode, with gradients as they are without the caller's `no_grad`, `inference_mode`
    or autocast.
    """
    with (
        model.evaluating(),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(model.device.type, enabled=False),
    ):
        yield


def check_current(model: Model) -> Model:
    """The model with its reading, if its module is still made of the same parts.

    Raises:
        ModelError: if the module's parts were exchanged since, or the reading turns out wrong.
    """
    if model.reading is None:
        model = read(model, fixed_layout=True)
    assert model.reading is not None
    parts = set(model.module.modules())
    backbones = (model, *model.others)
    blocks = [block for backbone in backbones for block in backbone.anatomy.blocks]
    exchanged = any(block not in parts for block in blocks)
    if exchanged or model.reading.structure != structure_of(model.module):
        raise ModelError(
            f"parts of {model.spec} were exchanged after it was wrapped, so it may be read "
            "otherwise now; wrap it again."
        )
    if model.reading.blank:
        with verifying(model):
            verify_backbones([replace(model, others=()), *model.others])
    return model


def _reread(model: Model, error: ModelError | None, *, fixed_layout: bool) -> list[Model]:
    """Another reading, proposed from what the model shows.

    Args:
        model: as its family file, or nothing, reads it.
        error: why the reading of its family is wrong, or None without one.
        fixed_layout: whether the layout is the user's, and must agree.

    Raises:
        ModelError: saying why the first reading is wrong, and why no other was accepted.
    """
    errors = [] if error is None else [error]
    claimed = [model.anatomy.blocks] if model.anatomy.blocks else []
    try:
        for blocks in dict.fromkeys((*claimed, *block_lists(model))):
            locate = partial(grid_of_proposed, before_attention=blocks not in claimed)
            try:
                backbones = verify_backbones(propose(model, blocks, locate))
            except ReadingError as rejected:
                errors.append(rejected)
                continue
            if fixed_layout:
                return [_with_layout(backbone, model.layout) for backbone in backbones]
            return backbones
    except ModelError as failed:
        errors.append(failed)
    if error is not None and not isinstance(error, ReadingError):
        raise error
    shown = errors[:1] if error is None else errors[:2]
    raise ModelError(" ".join(dict.fromkeys(str(reason) for reason in shown))) from None


def _check_layout(backbones: Sequence[Model], layout: TokenLayout) -> None:
    """See that a layout agrees with the tokens' pixels.

    Raises:
        ModelError: if it does not.
    """
    for model in backbones:
        noise = sample_input(model)
        grid = grid_of(model, noise)
        claimed = layout.grid_for((noise.shape[2], noise.shape[3]), grid.tokens)
        if claimed != grid.shape:
            raise ModelError(
                f"the layout given for {model.spec} says a {claimed[0]}x{claimed[1]} grid, but its "
                f"tokens depend on pixels as a {grid.shape[0]}x{grid.shape[1]} grid does."
            )


def _with_layout(model: Model, layout: TokenLayout) -> Model:
    """The model with the user's layout, if it agrees with the layout that the model shows.

    Raises:
        ModelError: if it does not.
    """
    shown = model.layout
    pairs = {
        "prefix tokens": (layout.prefix, shown.prefix),
        "readout": (layout.rows, shown.rows),
        "pool": (layout.pool is None, shown.pool is None),
    }
    for what, (claimed, actual) in pairs.items():
        if claimed != actual:
            raise ModelError(
                f"the layout given for {model.spec} says {what} {claimed}, but the model shows "
                f"{actual}: {shown}."
            )
    return replace(model, layout=layout)
