"""Spreading relevance from patch to patch: to neighbours, similar tokens, or along attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.attribution.options import is_number
from gradtoken.errors import MethodError, NotSupportedError
from gradtoken.images.patch_grid import pick
from gradtoken.images.smoothing import FLAT, Relevance, spread_by_nearness
from gradtoken.precision import full_precision, wide
from gradtoken.tap.hooks import affinity_block
from gradtoken.trace.trace import Trace

Spread: TypeAlias = Literal["auto", "mutual", "near", "token", "attention"] | None
SpreadLayers: TypeAlias = Literal["all", "lower"]
Reach: TypeAlias = float | Literal["auto"] | None

_LEAST_REACH = 1e-3
REACH = {"mutual": 0.15, "near": 0.05, "token": 0.05}
"""What reach="auto" is for each spread that has one."""


def check_reach(reach: Reach, spread: Spread) -> None:
    """Check GradToken's option `reach`.

    Raises:
        MethodError: if it is no distance, or missing where the spread needs one.
    """
    if reach is None:
        if spread in ("auto", "mutual", "near"):
            raise MethodError(f'gradtoken with spread="{spread}" needs a reach, such as 0.05.')
    elif reach != "auto" and not (is_number(reach) and reach >= _LEAST_REACH):
        raise MethodError(
            f'gradtoken\'s reach is {reach!r}; it must be "auto", None or a number from '
            f"{_LEAST_REACH} up."
        )


def spread_relevance(
    relevance: Relevance,
    trace: Trace,
    spread: Spread,
    *,
    blocks: Sequence[int],
    temperature: float,
    reach: Reach,
) -> Relevance:
    """One step of relevance from patch to patch; the options are those of `GradToken`.

    `blocks` are those whose attention "mutual" averages.

    Raises:
        NotSupportedError: for "mutual" and "attention", if patches do not attend to all patches in
            every block, or attention is computed by hand.
    """
    if spread == "attention":
        calls = trace.global_calls()
        affinity = trace.attention_between_patches(range(len(calls)))
        assert affinity is not None, "global calls attend from all tokens to all"
        return spread_along(relevance, affinity)
    affinity = trace.attention_between_patches(blocks)
    if spread == "auto":
        spread = "near" if affinity is None else "mutual"
    if reach == "auto":
        reach = REACH.get(spread or "")
    if spread is None:
        return relevance
    if spread == "token":
        return spread_by_tokens(
            relevance, affinity_tokens(trace), temperature, grid=trace.grid, reach=reach
        )
    assert reach is not None
    if spread == "near":
        return spread_by_nearness(relevance, grid=trace.grid, reach=reach)
    if affinity is None:
        raise NotSupportedError(
            "needs one attention between all tokens in each block that it averages, which "
            f"{trace.model.spec} does not have, computes by hand, or has in several backbones; use "
            'spread="auto".'
        )
    return spread_by_mutual_attention(relevance, affinity, trace.grid, reach)


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


def spread_by_mutual_attention(
    relevance: Relevance,
    attention: Float[Tensor, "batch patches patches"],
    grid: tuple[int, int],
    reach: float,
) -> Relevance:
    """R <- M R, M_ij ~ min(A_ij, A_ji) exp(-d_ij^2 / 2 s^2), each row summing to 1.

    A is the patches' attention; d and s as in `spread_by_tokens`. The minimum leaves out attention
    sinks, which many patches attend to and which attend to few.
    """
    mutual = torch.minimum(attention, attention.transpose(1, 2))
    return spread_along(relevance, mutual * _log_gaussian(grid, reach).exp().to(mutual))


def spread_along(
    relevance: Relevance, affinity: Float[Tensor, "batch patches patches"]
) -> Relevance:
    """Average relevance over patches, with weights proportional to an affinity.

    A patch without affinity, which a mask hides from all others, keeps its own relevance.
    """
    with full_precision(affinity):
        total = affinity.sum(-1, keepdim=True)
        alone = torch.eye(affinity.shape[-1], dtype=affinity.dtype, device=affinity.device)
        affinity = torch.where(total > 0, affinity / total.where(total > 0, 1), alone)
        return (affinity.to(relevance.dtype) @ relevance.transpose(1, 2)).transpose(1, 2)


def affinity_tokens(trace: Trace) -> Float[Tensor, "batch patches dim"]:
    """The spatial tokens entering the second-last block, or those pooled if none is known."""
    inputs = trace.block_record.inputs
    if inputs:
        return trace.patch_grid.pick(inputs[affinity_block(trace.depth)], 1)
    tokens = trace.pooled().detach()
    return pick(tokens, trace.pooled_order(), trace.spatial, 1)
