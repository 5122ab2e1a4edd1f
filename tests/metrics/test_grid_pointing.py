"""The grid pointing game by hand."""

from __future__ import annotations

import pytest
import torch

from gradtoken.errors import MethodError
from gradtoken.metrics.grid_pointing import grid_pointing, mosaic


def test_mosaic_is_in_reading_order() -> None:
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 8).contiguous()
    result = mosaic(images, (8, 8))
    assert result.shape == (1, 3, 8, 8)
    expected = (
        torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat_interleave(4, 0).repeat_interleave(4, 1)
    )
    torch.testing.assert_close(result[0, 1], expected)
    with pytest.raises(MethodError, match="3 images make no square mosaic of 8x8"):
        mosaic(images[:3], (8, 8))


def test_grid_pointing_is_share_in_own_cell() -> None:
    maps = torch.full((4, 4, 4), -1.0)
    maps[0, 0, 0], maps[0, 3, 3] = 3.0, 1.0
    maps[1, 0, 3] = 2.0
    maps[2, 0, 0] = 5.0
    result = grid_pointing(maps, 2)
    assert result.tolist() == [0.75, 1.0, 0.0, 0.0]
    with pytest.raises(MethodError, match="3 maps of 4x4 pixels are not those of a mosaic of 2x2"):
        grid_pointing(maps[:3], 2)
    with pytest.raises(MethodError, match="4 maps of 4x3 pixels are not those of a mosaic of 2x2"):
        grid_pointing(maps[:, :, :3], 2)
