"""Spreading relevance from patch to patch: to neighbours, similar tokens, or along attention."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.images.patch_grid import PatchGrid, pick
from gradtoken.images.smoothing import FLAT, Relevance
from gradtoken.precision import full_precision, wide
from gradtoken.tap.attention_call import AttentionCall
from gradtoken.tap.hooks import affinity_block
from gradtoken.trace.trace import Trace


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
    rows = list(grid.positions)
    affinity = torch.stack([grid.pick(call.rows(rows)).mean(dim=1) for call in calls]).mean(dim=0)
    affinity = affinity / affinity.sum(-1, keepdim=True)
    return (affinity.to(relevance.dtype) @ relevance.transpose(1, 2)).transpose(1, 2)


def affinity_tokens(trace: Trace) -> Float[Tensor, "batch patches dim"]:
    """The spatial tokens entering the second-last block, or those pooled if none is known."""
    inputs = trace.block_record.inputs
    if inputs:
        return trace.patch_grid.pick(inputs[affinity_block(trace.depth)], 1)
    tokens = trace.pooled().detach()
    return pick(tokens, trace.pooled_order(), trace.spatial, 1)
