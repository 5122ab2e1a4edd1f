"""The grid of spatial tokens on the input's pixels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gradtoken.errors import MethodError
from gradtoken.images.crop_box import Box
from gradtoken.images.patch_grid import PatchGrid, averaged_tokens, to_pixels

REST = PatchGrid((2, 2), (10, 10), 5, None, Box(0.0, 0.0, 8.0, 8.0))
"""Patches of four pixels on ten, of which the last two belong to no token."""


def test_enlarged_maps() -> None:
    tokens = torch.tensor([[[0.0, 1.0]]])
    assert to_pixels(tokens, (1, 4), mode="nearest")[0, 0].tolist() == [0, 0, 1, 1]
    assert to_pixels(tokens, (1, 4))[0, 0].tolist() == [0, 0.25, 0.75, 1]
    assert to_pixels(tokens, (1, 4), mode="bicubic").shape == (1, 1, 4)
    for grid in (PatchGrid((1, 2), (1, 4), 2), REST):
        with pytest.raises(MethodError, match="to enlarge maps is named 'area'; use 'bilinear'"):
            grid.enlarge(tokens, mode="area")


def test_a_grid_that_covers_the_input_pools_and_enlarges_as_torch_does() -> None:
    grid = PatchGrid((3, 2), (12, 8), 7)
    pixels = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(grid.pool(pixels), F.adaptive_avg_pool2d(pixels, (3, 2)))
    maps = torch.rand(2, 3, 2)
    expected = F.interpolate(maps[:, None], (12, 8), mode="bilinear")[:, 0]
    assert torch.equal(grid.enlarge(maps), expected)
    assert grid.area() == 16
    assert grid.on(Box(1, 2, 3, 4)) == Box(1, 2, 3, 4)


def test_pixels_of_no_token_are_left_out() -> None:
    pixels = torch.zeros(1, 10, 10)
    pixels[0, :4, 4:8] = 1
    pixels[0, 8:] = 9
    assert REST.pool(pixels).tolist() == [[[0, 1], [0, 0]]]
    large = REST.enlarge(torch.ones(1, 2, 2))[0]
    assert bool((large[:8, :8] == 1).all())
    assert not bool(large[8:].any() | large[:, 8:].any())
    assert REST.area() == 16
    assert REST.slices() == (slice(0, 8), slice(0, 8))


def test_cells_on_the_original_image() -> None:
    """An input of 10x10 that is the part (20, 10) to (70, 60) of an image, five pixels each."""
    assert REST.on(Box(20, 10, 70, 60)) == Box(20, 10, 60, 50)


def test_cells_between_pixels_share_them() -> None:
    grid = PatchGrid((1, 2), (1, 4), 2, None, Box(0.5, 0.0, 3.5, 1.0))
    pixels = torch.tensor([[[1.0, 2.0, 4.0, 8.0]]])
    expected = [(0.5 * 1 + 2) / 1.5, (4 + 0.5 * 8) / 1.5]
    torch.testing.assert_close(grid.pool(pixels), torch.tensor([[expected]]))


def test_spatial_tokens_in_reading_order() -> None:
    grid = PatchGrid((2, 2), (4, 4), 6, (1, 3, 2, 4))
    values = torch.arange(6.0)[None]
    assert grid.pick(values).tolist() == [[1, 3, 2, 4]]
    assert grid.pick(values.T, 0).flatten().tolist() == [1, 3, 2, 4]
    assert grid.others == (0, 5)
    last = PatchGrid((2, 2), (4, 4), 6)
    assert last.pick(values).tolist() == [[2, 3, 4, 5]]
    assert last.positions == (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("pool", "order", "expected"),
    [
        (0, None, (0, 1, 2, 3, 4, 5)),
        (2, None, (2, 3, 4, 5)),
        (1, None, (1, 2, 3, 4, 5)),
        (2, (1, 2, 3, 4), (1, 2, 3, 4)),
    ],
)
def test_tokens_that_a_head_averages(pool: int, order: object, expected: tuple[int, ...]) -> None:
    assert averaged_tokens(pool, PatchGrid((2, 2), (4, 4), 6, order)) == expected
