"""The grid of spatial tokens on the input's pixels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gradtoken.errors import MethodError
from gradtoken.images.box import Box
from gradtoken.images.patch_grid import PatchGrid, averaged_tokens, lay_out, to_pixels

REST = PatchGrid((2, 2), (10, 10), 5, None, Box(0.0, 0.0, 8.0, 8.0))
"""Patches of four pixels on ten, of which the last two belong to no token."""


def test_enlarge_modes() -> None:
    tokens = torch.tensor([[[0.0, 1.0]]])
    assert to_pixels(tokens, (1, 4), mode="nearest")[0, 0].tolist() == [0, 0, 1, 1]
    assert to_pixels(tokens, (1, 4))[0, 0].tolist() == [0, 0.25, 0.75, 1]
    assert to_pixels(tokens, (1, 4), mode="bicubic").shape == (1, 1, 4)
    for grid in (PatchGrid((1, 2), (1, 4), 2), REST):
        with pytest.raises(MethodError, match="to enlarge maps is named 'area'; use 'bilinear'"):
            grid.enlarge(tokens, mode="area")


def test_pool_and_enlarge_equal_torch_for_full_grid() -> None:
    grid = PatchGrid((3, 2), (12, 8), 7)
    pixels = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(grid.pool(pixels), F.adaptive_avg_pool2d(pixels, (3, 2)))
    maps = torch.rand(2, 3, 2)
    expected = F.interpolate(maps[:, None], (12, 8), mode="bilinear")[:, 0]
    assert torch.equal(grid.enlarge(maps), expected)
    assert grid.area() == 16
    assert grid.on(Box(1, 2, 3, 4)) == Box(1, 2, 3, 4)


def test_pool_and_enlarge_leave_out_pixels_of_no_token() -> None:
    pixels = torch.zeros(1, 10, 10)
    pixels[0, :4, 4:8] = 1
    pixels[0, 8:] = 9
    assert REST.pool(pixels).tolist() == [[[0, 1], [0, 0]]]
    large = REST.enlarge(torch.ones(1, 2, 2))[0]
    assert bool((large[:8, :8] == 1).all())
    assert not bool(large[8:].any() | large[:, 8:].any())
    assert REST.area() == 16
    assert REST.slices() == (slice(0, 8), slice(0, 8))


def test_on_original_image() -> None:
    """An input of 10x10 that is the part (20, 10) to (70, 60) of an image, five pixels each."""
    assert REST.on(Box(20, 10, 70, 60)) == Box(20, 10, 60, 50)


def test_pool_shares_pixels_between_cells() -> None:
    grid = PatchGrid((1, 2), (1, 4), 2, None, Box(0.5, 0.0, 3.5, 1.0))
    pixels = torch.tensor([[[1.0, 2.0, 4.0, 8.0]]])
    expected = [(0.5 * 1 + 2) / 1.5, (4 + 0.5 * 8) / 1.5]
    torch.testing.assert_close(grid.pool(pixels), torch.tensor([[expected]]))


def test_pick_spatial_tokens_in_reading_order() -> None:
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
def test_averaged_tokens(pool: int, order: object, expected: tuple[int, ...]) -> None:
    assert averaged_tokens(pool, PatchGrid((2, 2), (4, 4), 6, order)) == expected


def test_lay_out_places_tokens_in_box() -> None:
    tokens = torch.arange(4.0).view(1, 2, 2)
    box = Box(20, 0, 60, 40)
    out = lay_out(tokens, box, (80, 40), mode="nearest")
    assert out.shape == (1, 40, 80)
    assert torch.equal(out[0, :20, 20:40], torch.zeros(20, 20))
    assert torch.equal(out[0, :20, 40:60], torch.ones(20, 20))
    assert torch.equal(out[0, 20:, 20:40], torch.full((20, 20), 2.0))
    assert torch.equal(out[0, 20:, 40:60], torch.full((20, 20), 3.0))
    assert out[0, :, :20].abs().max() == 0
    assert out[0, :, 60:].abs().max() == 0


def test_lay_out_beyond_image_borders() -> None:
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    out = lay_out(tokens, Box(0, -20, 80, 60), (80, 40), mode="nearest")
    assert torch.equal(out[0, :20, :40], torch.ones(20, 40))
    assert torch.equal(out[0, 20:, 40:], torch.full((20, 40), 4.0))
