"""Orders of pixels and enlarged maps."""

from __future__ import annotations

import pytest
import torch

from gradtoken.errors import MethodError
from gradtoken.metrics.replacing import ranks, to_pixels


def test_places_in_the_order_of_relevance() -> None:
    maps = torch.tensor([[[0.5, 2.0], [0.5, -1.0]]])
    assert ranks(maps).tolist() == [[1, 0, 2, 3]]


def test_enlarged_maps() -> None:
    tokens = torch.tensor([[[0.0, 1.0]]])
    assert to_pixels(tokens, (1, 4), mode="nearest")[0, 0].tolist() == [0, 0, 1, 1]
    assert to_pixels(tokens, (1, 4))[0, 0].tolist() == [0, 0.25, 0.75, 1]
    assert to_pixels(tokens, (1, 4), mode="bicubic").shape == (1, 1, 4)
    with pytest.raises(MethodError, match="no way to enlarge maps is named 'area'; use 'bilinear'"):
        to_pixels(tokens, (1, 4), mode="area")
