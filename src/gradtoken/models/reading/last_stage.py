"""Verifying models that are followed after their last stage only: windowed and hierarchical ones.

Their tokens have seen the whole image, so no one pixel belongs to one token. What is verified is
that the output depends on the image through the averaged tokens alone, and that these lie on the
image as the model's family says: in two forwards where the tokens change as the pixels of their own
cells do, and in four where they change together.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.model import Model
from gradtoken.models.reading.cells import CERTAIN, ENOUGH, cell_amplitudes, cells_alike
from gradtoken.models.reading.gradients import NEGLIGIBLE
from gradtoken.models.reading.observe import check_output, run, with_autograd
from gradtoken.models.reading.probe import CHANGES, ramps
from gradtoken.models.verification import Fact, LocatedGrid, ReadingError, VerifiedReadout
from gradtoken.precision import wide
from gradtoken.tap.alignment import Alignment
from gradtoken.tap.block_io import output_tokens, with_output_tokens
from gradtoken.tap.recorder import Recorder

ALIKE = 0.5
"""Correlation of claimed and shown places from which on a claimed layout is confirmed."""


class _Held:
    """Runs a model on images, each time with the averaged tokens of the first.

    Args:
        model: whose pool is known.
    """

    def __init__(self, model: Model) -> None:
        assert model.anatomy.pool is not None
        self._model, self._pool = model, model.anatomy.pool
        self._kept: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self.around = 0.0
        """How much other pixels change the output, relative to it."""

    def output(self, image: Tensor) -> Tensor:
        """The output for an image.

        Raises:
            ReadingError: if the tokens are not averaged once, or the output differs from that of
                the first image although these tokens are the same.
        """
        with torch.no_grad(), ExitStack() as stack:
            stack.callback(self._register().remove)
            output = run(self._model, image)
        if not self._outputs:
            check_output(self._model, output)
        self._outputs.append(wide(output.detach()))
        if len(self._kept) != len(self._outputs):
            raise ReadingError(
                f"{self._model.spec} averages its tokens {len(self._kept)} times in "
                f"{len(self._outputs)} forwards, so no one average makes its output; explain the "
                "plain model."
            )
        self._check_around()
        return self._outputs[-1]

    def tokens(self) -> Tensor:
        """The averaged tokens (T, D) of the last image, before they were replaced."""
        return wide(self._pool.flat(self._kept[-1])).double()[0]

    def _check_around(self) -> None:
        first, last = self._outputs[0], self._outputs[-1]
        size = first.abs().max().clamp_min(torch.finfo(first.dtype).tiny)
        self.around = max(self.around, float((last - first).abs().max() / size))
        if self.around > NEGLIGIBLE:
            raise ReadingError(
                f"the output of {self._model.spec} depends on the image by a way around the tokens "
                "of its last stage, which a map of these would leave out."
            )

    def _register(self) -> Any:
        module = self._pool.module
        if self._pool.at_input:
            return module.register_forward_pre_hook(self._exchange)
        return module.register_forward_hook(self._exchange)

    def _exchange(self, _: nn.Module, args: tuple[Any, ...], output: Any = None) -> Any:
        tokens = args[0] if output is None else output_tokens(output)
        self._kept.append(tokens.detach())
        torch.set_grad_enabled(True)
        copy = self._kept[0].clone().requires_grad_().clone()
        return (copy, *args[1:]) if output is None else with_output_tokens(output, copy)


@dataclass(frozen=True)
class Examined:
    """The result of these forwards.

    Args:
        located: where the averaged tokens lie.
        verified: what was verified.
        outputs: how many logits the model returns.
        writes_in_place: whether it wrote into tensors in place.
    """

    located: LocatedGrid
    verified: VerifiedReadout
    outputs: int
    writes_in_place: bool


def examine_last_stage(
    model: Model, noise: Tensor, claimed: Callable[[int], PatchGrid]
) -> Examined:
    """Locate a model's averaged tokens, and see that it reads its class from them alone.

    Args:
        model: whose blocks are not followed.
        noise: (1, C, H, W) of its input's size, type and device.
        claimed: the grid that the model's layout says, of a number of tokens.

    Raises:
        ModelError: if the output depends on the image otherwise, or the tokens do not lie so.
    """
    held, recorder = _Held(model), Recorder()
    with with_autograd(model):
        with recorder:
            plain = held.output(noise)
        before = held.tokens()

        def changes(amplitude: Tensor) -> Tensor:
            held.output(noise + _change(noise) * amplitude.to(noise))
            return (held.tokens() - before).square().sum(-1).cpu()

        located = _located(model, claimed(len(before)), changes)
    fact = Fact(
        "change of the output by other pixels, its averaged tokens held", held.around, NEGLIGIBLE
    )
    verified = VerifiedReadout((fact,), (), Alignment())
    return Examined(located, verified, plain.shape[1], recorder.written)


def _change(noise: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(noise.shape, generator=generator, dtype=torch.float32).to(noise)
    return drawn * CHANGES.get(noise.dtype, 0.1)


def _located(model: Model, grid: PatchGrid, changes: Callable[[Tensor], Tensor]) -> LocatedGrid:
    """The claimed grid, if the tokens lie so.

    Args:
        model: the model, for errors.
        grid: the claimed one.
        changes: how much each token changes, given the amplitude of noise added at each pixel.

    Raises:
        ReadingError: if they do not.
    """
    if grid.count >= ENOUGH:
        value = cells_alike(grid, changes(cell_amplitudes(grid)))
        if value >= CERTAIN:
            return LocatedGrid(grid, "confirmed", value, CERTAIN)
    down, across = ramps(torch.empty(grid.size))
    value, moved = _ramps_alike(grid, changes(down), changes(across))
    if not value >= max(ALIKE, moved):
        raise ReadingError(
            f"the averaged tokens of {model.spec} do not lie on the image as a row-by-row "
            f"{grid.shape[0]}x{grid.shape[1]} grid (correlation {value:.2f}), so a map cannot be "
            "laid out; use a model that cuts the image into a grid."
        )
    return LocatedGrid(grid, "confirmed", value, ALIKE)


def _ramps_alike(grid: PatchGrid, below: Tensor, right: Tensor) -> tuple[float, float]:
    """How well places agree with tokens' changes by noise whose variance grows down the image and
    by noise whose variance grows across it: how much more a token changes in one of them tells
    whether it lies lower or farther right.

    Returns:
        The correlation, and the largest one where all tokens were moved by a row, a column or a
        token.
    """
    if grid.count == 1:
        return 1.0, 1.0
    rows, columns = (torch.arange(side, dtype=torch.float64) + 0.5 for side in grid.shape)
    claim = ((rows[:, None] / len(rows)).log() - (columns / len(columns)).log()).flatten()
    tiny = torch.finfo(torch.float64).tiny
    shown = below.clamp_min(tiny).log() - right.clamp_min(tiny).log()
    order = torch.tensor(grid.positions)
    orders = [order, order.roll(1), order.roll(-1)]
    by_cell = order.view(grid.shape)
    orders += [by_cell.roll(by, axis).flatten() for by in (1, -1) for axis in (0, 1)]
    value, *moved = (float(torch.corrcoef(torch.stack([claim, shown[at]]))[0, 1]) for at in orders)
    return value, max(moved)
