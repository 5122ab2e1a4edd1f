"""Verifying models that are followed after their last stage only: windowed and hierarchical ones.

Their tokens have seen the whole image, so no one pixel belongs to one token. What is verified in
three forwards is that the output depends on the image through the averaged tokens alone, and that
these lie on the image as the model's family says.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.model import Model
from gradtoken.models.reading.gradients import NEGLIGIBLE
from gradtoken.models.reading.observe import check_output, run, with_autograd
from gradtoken.models.reading.probe import CHANGES, ramps
from gradtoken.models.verification import Fact, LocatedGrid, ReadingError, VerifiedReadout
from gradtoken.precision import wide
from gradtoken.tap.alignment import Alignment
from gradtoken.tap.anatomy import Pool
from gradtoken.tap.block_io import output_tokens, with_output_tokens
from gradtoken.tap.recorder import Recorder

ALIKE = 0.5
"""Correlation of claimed and shown places from which on a claimed layout is confirmed."""


@dataclass
class _Exchange:
    """Keeps the pooled tokens of each forward, and replaces them by those of the first one."""

    pool: Pool
    kept: list[Tensor] = field(default_factory=list)

    def hook(self, _: nn.Module, args: tuple[Any, ...], output: Any = None) -> Any:
        tokens = args[0] if output is None else output_tokens(output)
        self.kept.append(tokens.detach())
        torch.set_grad_enabled(True)
        copy = self.kept[0].clone().requires_grad_().clone()
        return (copy, *args[1:]) if output is None else with_output_tokens(output, copy)

    def register(self) -> Any:
        module = self.pool.module
        if self.pool.at_input:
            return module.register_forward_pre_hook(self.hook)
        return module.register_forward_hook(self.hook)

    def tokens(self) -> list[Tensor]:
        return [wide(self.pool.flat(tokens)).double()[0] for tokens in self.kept]


@dataclass(frozen=True)
class Examined:
    """The result of three forwards.

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

    The second and third forward are of images with noise added, whose variance grows down the image
    in one and across it in the other. How much more a token changes in one of them tells whether it
    lies lower or farther right.

    Args:
        model: whose blocks are not followed.
        noise: (1, C, H, W) of its input's size, type and device.
        claimed: the grid that the model's layout says, of a number of tokens.

    Raises:
        ReadingError: if the output depends on the image otherwise, or the tokens do not lie so.
    """
    assert model.anatomy.pool is not None
    exchange, recorder = _Exchange(model.anatomy.pool), Recorder()
    with with_autograd(model), torch.no_grad(), ExitStack() as stack:
        stack.callback(exchange.register().remove)
        outputs = []
        for image in _images(noise):
            with torch.no_grad(), recorder:
                outputs.append(run(model, image))
    check_output(model, outputs[0])
    if len(exchange.kept) != len(outputs):
        raise ReadingError(
            f"{model.spec} averages its tokens {len(exchange.kept)} times in {len(outputs)} "
            "forwards, so no one average makes its output; explain the plain model."
        )
    plain = wide(outputs[0].detach())
    gap = max(float((wide(other.detach()) - plain).abs().max()) for other in outputs[1:])
    around = gap / float(plain.abs().max().clamp_min(torch.finfo(plain.dtype).tiny))
    if around > NEGLIGIBLE:
        raise ReadingError(
            f"the output of {model.spec} depends on the image by a way around the tokens of its "
            "last stage, which a map of these would leave out."
        )
    located = _confirmed(model, exchange.tokens(), claimed)
    fact = Fact(
        "change of the output by other pixels, its averaged tokens held", around, NEGLIGIBLE
    )
    verified = VerifiedReadout((fact,), (), Alignment())
    return Examined(located, verified, plain.shape[1], recorder.written)


def _images(noise: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(noise.shape, generator=generator, dtype=torch.float32).to(noise)
    drawn = drawn * CHANGES.get(noise.dtype, 0.1)
    down, across = ramps(noise)
    return [noise, noise + drawn * down, noise + drawn * across]


def _confirmed(
    model: Model, tokens: list[Tensor], claimed: Callable[[int], PatchGrid]
) -> LocatedGrid:
    grid = claimed(len(tokens[0]))
    below, right = (((t - tokens[0]).square().sum(-1)).cpu() for t in tokens[1:])
    at = torch.tensor(grid.positions)
    rows, columns = (torch.arange(side, dtype=torch.float64) + 0.5 for side in grid.shape)
    claim = (rows[:, None] / len(rows)).log() - (columns / len(columns)).log()
    tiny = torch.finfo(torch.float64).tiny
    shown = below[at].clamp_min(tiny).log() - right[at].clamp_min(tiny).log()
    value = 1.0
    if grid.count > 1:
        value = float(torch.corrcoef(torch.stack([claim.flatten(), shown]))[0, 1])
    if not value >= ALIKE:
        raise ReadingError(
            f"the averaged tokens of {model.spec} do not lie on the image as a row-by-row "
            f"{grid.shape[0]}x{grid.shape[1]} grid (correlation {value:.2f}), so a map cannot be "
            "laid out; use a model that cuts the image into a grid."
        )
    return LocatedGrid(grid, "confirmed", value, ALIKE)
