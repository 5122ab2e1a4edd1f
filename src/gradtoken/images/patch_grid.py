"""The grid of spatial tokens: which tokens of a sequence they are, and which pixels they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.errors import MethodError
from gradtoken.images.box import Box

Interpolation: TypeAlias = Literal["bilinear", "nearest", "bicubic"]


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """The spatial tokens that a model makes of inputs of one size.

    Args:
        shape: rows and columns.
        size: (height, width) of the input in pixels.
        tokens: T, the length of the token sequence.
        order: positions of the spatial tokens in the sequence, in reading order of the grid; None
            for the last ones in their own order.
        cells: the part of the input that the cells of the grid cover, in pixels; None for all of
            it. Each token has one cell, around the centre of the pixels it is made of.
    """

    shape: tuple[int, int]
    size: tuple[int, int]
    tokens: int
    order: tuple[int, ...] | None = None
    cells: Box | None = None

    @property
    def count(self) -> int:
        """N, the number of spatial tokens."""
        return self.shape[0] * self.shape[1]

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions of the spatial tokens in the sequence, in reading order."""
        return self.order or tuple(range(self.tokens - self.count, self.tokens))

    @cached_property
    def others(self) -> tuple[int, ...]:
        """Positions of all other tokens: class token, registers."""
        spatial = set(self.positions)
        return tuple(i for i in range(self.tokens) if i not in spatial)

    def pick(self, values: Tensor, dim: int = -1) -> Tensor:
        """The spatial tokens, in reading order, of a dimension that runs over the sequence."""
        return pick(values, self.order, self.count, dim)

    def on(self, box: Box) -> Box:
        """The box that the cells cover, where `box` is what the whole input covers."""
        if self.cells is None:
            return box
        down = (box.bottom - box.top) / self.size[0]
        across = (box.right - box.left) / self.size[1]
        return Box(
            box.left + self.cells.left * across,
            box.top + self.cells.top * down,
            box.left + self.cells.right * across,
            box.top + self.cells.bottom * down,
        )

    def pool(self, pixels: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch h w"]:
        """The mean over the pixels of each cell."""
        if self.cells is None:
            flat = pixels.flatten(0, -3) if pixels.ndim > 3 else pixels
            pooled = F.adaptive_avg_pool2d(flat, self.shape)
            return pooled.view(*pixels.shape[:-2], *self.shape)
        down = overlaps(self.shape[0], self.cells.top, self.cells.bottom, self.size[0]).to(pixels)
        across = overlaps(self.shape[1], self.cells.left, self.cells.right, self.size[1])
        return down @ pixels @ across.to(pixels).T

    def slices(self) -> tuple[slice, slice]:
        """The pixels that the cells cover, as whole rows and columns of the input."""
        left, top, right, bottom = self.cells or (0, 0, self.size[1], self.size[0])
        return slice(round(top), round(bottom)), slice(round(left), round(right))

    def area(self) -> float:
        """Pixels of one cell."""
        left, top, right, bottom = self.cells or (0.0, 0.0, self.size[1], self.size[0])
        return (right - left) * (bottom - top) / self.count

    def enlarge(
        self, tokens: Float[Tensor, "batch h w"], *, mode: Interpolation = "bilinear"
    ) -> Float[Tensor, "batch height width"]:
        """Token maps on the input's pixels; 0 outside of the cells.

        "bicubic" may go beyond the tokens' lowest and highest relevance; the other two do not.

        Raises:
            MethodError: another mode.
        """
        if self.cells is None:
            return to_pixels(tokens, self.size, mode=mode)
        _check_mode(mode)
        return lay_out(tokens, self.cells, self.size[::-1], mode=mode)


def averaged_tokens(pool: int, grid: PatchGrid) -> tuple[int, ...]:
    """Positions of the tokens that a head averages.

    Args:
        pool: 0 for all tokens; else the spatial ones, and of those before them the ones from this
            position on.
        grid: the spatial tokens.
    """
    if pool == 0:
        return tuple(range(grid.tokens))
    spatial, start = set(grid.positions), min(grid.positions)
    return tuple(i for i in range(grid.tokens) if i in spatial or pool <= i < start)


def pick(values: Tensor, order: Sequence[int] | None, count: int, dim: int = -1) -> Tensor:
    """Entries of a dimension by position, or the last `count` of them."""
    if order is None:
        return values.narrow(dim, values.shape[dim] - count, count)
    return values.index_select(dim, torch.tensor(order, device=values.device))


def overlaps(cells: int, start: float, end: float, length: int) -> Float[Tensor, "cells length"]:
    """The share of each cell of [start, end) that each of `length` pixels fills; rows sum to 1."""
    edges = torch.linspace(start, end, cells + 1, dtype=torch.float64)
    pixels = torch.arange(length + 1, dtype=torch.float64)
    low = torch.maximum(edges[:-1, None], pixels[None, :-1])
    high = torch.minimum(edges[1:, None], pixels[None, 1:])
    shared = (high - low).clamp_min(0)
    return shared / shared.sum(1, keepdim=True)


def to_pixels(
    tokens: Float[Tensor, "batch rows columns"],
    size: tuple[int, int],
    *,
    mode: Interpolation = "bilinear",
) -> Float[Tensor, "batch height width"]:
    """Token maps on `size` (height, width) pixels that the grid covers whole.

    "bicubic" may go beyond the tokens' lowest and highest relevance; the other two do not.

    Raises:
        MethodError: another mode.
    """
    _check_mode(mode)
    corners = None if mode == "nearest" else False
    return F.interpolate(tokens[:, None], size, mode=mode, align_corners=corners)[:, 0]


def _check_mode(mode: str) -> None:
    if mode not in get_args(Interpolation):
        raise MethodError(
            f"no way to enlarge maps is named {mode!r}; use "
            f"{', '.join(map(repr, get_args(Interpolation)))}."
        )


def lay_out(tokens: Tensor, box: Box, size: tuple[int, int], *, mode: str = "bilinear") -> Tensor:
    """Interpolate token maps on the pixels of the original image.

    Args:
        tokens: (K, h, w) token relevance of one image.
        box: the part of the original that the token grid covers.
        size: (width, height) of the original, in pixels.
        mode: of interpolation between token centres, "bilinear" or "nearest".

    Returns:
        (K, height, width); 0 outside of the box.
    """
    width, height = size
    left, top, right, bottom = box.visible(size)
    xs = torch.arange(left, right, device=tokens.device, dtype=torch.float64) + 0.5
    ys = torch.arange(top, bottom, device=tokens.device, dtype=torch.float64) + 0.5
    xs = 2 * (xs - box.left) / (box.right - box.left) - 1
    ys = 2 * (ys - box.top) / (box.bottom - box.top) - 1
    grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1).to(tokens.dtype)
    inside = F.grid_sample(
        tokens[None], grid[None], mode=mode, padding_mode="border", align_corners=False
    )[0]
    if (left, top, right, bottom) == (0, 0, width, height):
        return inside
    out = tokens.new_zeros(tokens.shape[0], height, width)
    out[:, top:bottom, left:right] = inside
    return out
