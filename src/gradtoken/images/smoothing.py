"""Smoothing of token maps: a Gaussian over neighbouring patches."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.precision import full_precision, wide

FLAT = 1e9
"""A reach or deviation from which on a Gaussian over a grid is flat; larger ones overflow."""


Relevance = Float[Tensor, "batch targets patches"]


def spread_by_nearness(relevance: Relevance, *, grid: tuple[int, int], reach: float) -> Relevance:
    """R <- S R, S_ij = softmax_j(-d_ij^2 / 2 s^2): a Gaussian, each row summing to 1.

    d and s as in `spread_by_tokens`. Written as one small matrix per side of the grid.
    """
    deviation = reach * math.sqrt(grid[0] * grid[1])
    field = wide(relevance).unflatten(-1, grid)
    down, across = (_gaussian(side, deviation).to(field) for side in grid)
    with full_precision(field):
        return (down @ field @ across.T).flatten(-2)


def _gaussian(side: int, deviation: float) -> Float[Tensor, "side side"]:
    place = torch.arange(side, dtype=torch.float64)
    width = 2 * min(deviation, FLAT) ** 2
    return (-(place[:, None] - place).square() / width).softmax(-1)
