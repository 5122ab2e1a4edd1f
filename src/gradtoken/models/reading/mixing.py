"""Checking that a model's tokens are mixed by visible attention alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradtoken.images.patch_grid import PatchGrid
from gradtoken.models.model import Model
from gradtoken.models.reading.observe import FAILURES, with_autograd
from gradtoken.models.verification import Fact, ReadingError
from gradtoken.precision import wide
from gradtoken.tap.anatomy import BlockArguments, run_with_arguments
from gradtoken.tap.attention_call import AttentionCall
from gradtoken.tap.attention_tap import AttentionTap, SelfAttention
from gradtoken.tap.block_io import output_tokens
from gradtoken.tap.hooks import BlockRecord

_ALLOWED = {torch.float64: 1e-6, torch.float32: 1e-3}


class _Stopped(Exception):  # noqa: N818
    """Ends a block that has reached its attention."""


class _Values(AttentionTap):
    """Keeps what the first attention call attends to, and ends there."""

    def __init__(self) -> None:
        super().__init__()
        self.value: Tensor | None = None

    def attend(self, call: AttentionCall, run: Callable[[], Tensor]) -> Tensor:
        self.value = call.value
        raise _Stopped


def attention_in_place(model: Model, record: BlockRecord, calls: Sequence[AttentionCall]) -> Fact:
    """Change half of the tokens entering each block, drawn at random, and see what it attends to.

    Raises:
        ReadingError: if other than these tokens' values change, because the block reorders or mixes
            its tokens before its attention, or attends to something else.
    """
    worst, allowed = 0.0, _ALLOWED.get(model.dtype, 0.1)
    with with_autograd(model), torch.no_grad():
        for index, block in enumerate(model.anatomy.blocks):
            tokens = record.inputs[index].detach()
            changed, chosen = _half_changed(tokens, index)
            tap = _Values()
            try:
                with tap:
                    run_with_arguments(block, changed, record.arguments[index])
            except (_Stopped, *FAILURES):
                if tap.value is None:
                    raise
            kept = next(call.value for call in calls if call.place == index).detach()
            gap = kept_gap = float("nan")
            if tap.value is not None and tap.value.shape == kept.shape:
                gaps = (wide(tap.value) - wide(kept)).abs().amax((0, 1, 3)).cpu()
                if len(gaps) == len(chosen):
                    size = gaps[chosen].median().clamp_min(1e-12)
                    gap = float(gaps[~chosen].max() / size)
                    kept_gap = float(gaps[chosen].min() / size)
            worst = max(worst, gap)
            if not (gap <= allowed and kept_gap > allowed):
                raise ReadingError(
                    f"what block {index} of {model.spec} attends to is not its own tokens in their "
                    "order (it reorders or mixes them before its attention, or attends to "
                    "something else), so attention cannot be laid on patches."
                )
    return Fact("change of what a block attends to where its token was not changed", worst, allowed)


def _half_changed(tokens: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens (1, N, D) of which half are changed, drawn at random, and which."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(tokens.shape[1], dtype=torch.bool)
    chosen[torch.randperm(tokens.shape[1], generator=generator)[: tokens.shape[1] // 2]] = True
    drawn = torch.randn(tokens.shape, generator=generator, dtype=torch.float32)
    change = drawn.to(tokens) * wide(tokens).std().to(tokens)
    return torch.where(chosen.to(tokens.device)[:, None], tokens + change, tokens), chosen


def attention_alone_mixes(model: Model, record: BlockRecord, grid: PatchGrid) -> Fact:
    """Run each block on one token, and on it and another, while every token attends to itself.

    What comes of each must be the same. Blocks that cannot be run on few tokens are run on all of
    them, and on half of them changed: what comes of the others must be the same.

    Raises:
        ReadingError: if a token changes another: the block mixes tokens by a convolution, say, or
            by attention computed by hand.
    """
    readout = model.layout.rows[0] if model.layout.rows else grid.positions[0]
    places = [readout, grid.positions[-1]]
    worst, allowed = 0.0, _ALLOWED.get(model.dtype, 0.1)
    with with_autograd(model), torch.no_grad(), SelfAttention():
        for index, block in enumerate(model.anatomy.blocks):
            tokens, arguments = record.inputs[index].detach(), record.arguments[index]
            try:
                gap = _change_of_two(model.anatomy.step, block, arguments, tokens[:, places])
            except FAILURES:
                gap = _change_of_all(block, arguments, tokens, index)
            worst = max(worst, gap)
            if not gap <= allowed:
                raise ReadingError(
                    f"block {index} of {model.spec} mixes tokens in another way than by attention "
                    "that can be seen (a convolution, or attention computed by hand), which a map "
                    "would leave out; use a model whose tokens meet in fused attention alone."
                )
    return Fact("change of a token by another, apart from attention", worst, allowed)


def _change_of_two(
    step: Callable[[nn.Module, Tensor, BlockArguments], Any],
    block: nn.Module,
    arguments: BlockArguments,
    tokens: Float[Tensor, "1 two dim"],
) -> float:
    """How much two tokens change each other, relative to the larger of each."""
    both = wide(output_tokens(step(block, tokens.clone(), arguments)))
    gaps = []
    for place in (slice(0, 1), slice(1, 2)):
        alone = wide(output_tokens(step(block, tokens[:, place].clone(), arguments)))
        gap = (both[:, place] - alone).abs().max() / alone.abs().max().clamp_min(1e-12)
        gaps.append(float(gap))
    return max(gaps)


def _change_of_all(
    block: nn.Module, arguments: BlockArguments, tokens: Float[Tensor, "1 tokens dim"], seed: int
) -> float:
    """How much half of all tokens change the others, relative to their own change."""
    changed, chosen = _half_changed(tokens, seed)
    before, after = (
        wide(output_tokens(run_with_arguments(block, t.clone(), arguments)))
        for t in (tokens, changed)
    )
    gaps = (after - before).abs().amax((0, 2)).cpu()
    return float(gaps[~chosen].max() / gaps[chosen].median().clamp_min(1e-12))
