"""Spreading relevance from patch to patch: to neighbours, similar tokens, or along attention."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.errors import NotSupportedError
from gradtoken.images.patch_grid import PatchGrid, pick
from gradtoken.images.smoothing import FLAT, Relevance, spread_by_nearness
from gradtoken.precision import full_precision, wide
from gradtoken.tap.attention_call import AttentionCall, Rows
from gradtoken.tap.hooks import affinity_block
from gradtoken.trace.trace import Trace

Spread: TypeAlias = Literal["auto", "mutual", "near", "token", "attention"] | None
SpreadLayers: TypeAlias = Literal["all", "lower"]
Reach: TypeAlias = float | Literal["auto"] | None

REACH = {"mutual": 0.15, "near": 0.05, "token": 0.05}
"""What reach="auto" is for each spread that has one."""

_ELEMENTS = 1 << 23
"""Attention weights held at once while a mean over heads is taken."""


def spread_relevance(
    relevance: Relevance,
    trace: Trace,
    spread: Spread,
    *,
    layers: SpreadLayers,
    temperature: float,
    reach: Reach,
) -> Relevance:
    """One step of relevance from patch to patch; the options are those of `GradToken`.

    Raises:
        NotSupportedError: for "mutual" and "attention", if patches do not attend to all patches in
            every block, or attention is computed by hand.
    """
    if spread == "auto":
        spread = "mutual" if attends_globally(trace) else "near"
    if reach == "auto":
        reach = REACH.get(spread or "")
    if spread is None:
        return relevance
    if spread == "attention":
        return spread_by_attention(relevance, trace.global_calls(), trace.patch_grid)
    if spread == "token":
        return spread_by_tokens(
            relevance, affinity_tokens(trace), temperature, grid=trace.grid, reach=reach
        )
    assert reach is not None
    if spread == "near":
        return spread_by_nearness(relevance, grid=trace.grid, reach=reach)
    calls = trace.global_calls()
    if layers == "lower":
        calls = calls[: (len(calls) + 1) // 2]
    return spread_by_mutual_attention(relevance, calls, trace.patch_grid, reach)


def attends_globally(trace: Trace) -> bool:
    """Whether the attention of all tokens to all was recorded in every block."""
    try:
        trace.global_calls()
    except NotSupportedError:
        return False
    return True


def spread_by_tokens(
    relevance: Relevance,
    tokens: Float[Tensor, "batch patches dim"],
    temperature: float,
    *,
    grid: tuple[int, int],
    reach: float | None,
) -> Relevance:
    """R <- S R, S_ij = softmax_j(cos(t_i - mean t, t_j - mean t) / temperature - d_ij^2 / 2 s^2).

    d_ij is the distance of two patches and s = reach * sqrt(rows * columns), both in patches;
    without a reach, distance does not count. Computed as one attention call with a channel per
    target.
    """
    centred = wide(tokens)
    unit = F.normalize(centred - centred.mean(dim=1, keepdim=True), dim=-1)[:, None]
    value = relevance.transpose(1, 2)[:, None].to(unit.dtype)
    with full_precision(unit):
        bias = None if reach is None else _log_gaussian(grid, reach).to(unit)
        spread = F.scaled_dot_product_attention(unit, unit, value, bias, scale=1 / temperature)
    return spread[:, 0].transpose(1, 2)


def _log_gaussian(grid: tuple[int, int], reach: float) -> Float[Tensor, "patches patches"]:
    """-d^2 / 2 s^2 of each pair of patches."""
    rows, columns = grid
    axes = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    position = torch.stack([axis.flatten() for axis in axes], dim=-1).double()
    squared = (position[:, None] - position[None]).square().sum(-1)
    return -squared / (2 * min(reach, FLAT) ** 2 * rows * columns)


def spread_by_attention(
    relevance: Relevance, calls: list[AttentionCall], grid: PatchGrid
) -> Relevance:
    """R <- A R with A the patches' own attention: mean over heads and blocks, rows sum to 1."""
    return spread_along(relevance, patch_attention(calls, grid))


def spread_by_mutual_attention(
    relevance: Relevance, calls: list[AttentionCall], grid: PatchGrid, reach: float
) -> Relevance:
    """R <- M R, M_ij ~ min(A_ij, A_ji) exp(-d_ij^2 / 2 s^2), each row summing to 1.

    A is the patches' attention, a mean over heads and blocks; d and s as in `spread_by_tokens`. The
    minimum leaves out attention sinks, which many patches attend to and which attend to few.
    """
    attention = patch_attention(calls, grid)
    mutual = torch.minimum(attention, attention.transpose(1, 2))
    return spread_along(relevance, mutual * _log_gaussian(grid.shape, reach).exp().to(mutual))


def spread_along(
    relevance: Relevance, affinity: Float[Tensor, "batch patches patches"]
) -> Relevance:
    """Average relevance over patches, with weights proportional to an affinity."""
    with full_precision(affinity):
        affinity = affinity / affinity.sum(-1, keepdim=True)
        return (affinity.to(relevance.dtype) @ relevance.transpose(1, 2)).transpose(1, 2)


def patch_attention(
    calls: list[AttentionCall], grid: PatchGrid
) -> Float[Tensor, "batch patches patches"]:
    """The attention of patches to patches, a mean over heads and calls.

    It is summed image by image and call by call, so that no more than the heads' attention of one
    call of few images is in memory.
    """
    rows: Rows = list(grid.positions)
    if grid.order is None:
        rows = slice(grid.tokens - grid.count, grid.tokens)
    total: Tensor | None = None
    for call in calls:
        step = max(1, _ELEMENTS // (call.key.shape[1] * grid.count * grid.tokens))
        images = range(0, len(call.key), step)
        parts = [call.images(slice(start, start + step)).rows(rows).mean(dim=1) for start in images]
        mean = grid.pick(parts[0] if len(parts) == 1 else torch.cat(parts))
        total = mean if total is None else total.add_(mean)
    assert total is not None, "no attention was recorded"
    return total / len(calls)


def affinity_tokens(trace: Trace) -> Float[Tensor, "batch patches dim"]:
    """The spatial tokens entering the second-last block, or those pooled if none is known."""
    inputs = trace.block_record.inputs
    if inputs:
        return trace.patch_grid.pick(inputs[affinity_block(trace.depth)], 1)
    tokens = trace.pooled().detach()
    return pick(tokens, trace.pooled_order(), trace.spatial, 1)
