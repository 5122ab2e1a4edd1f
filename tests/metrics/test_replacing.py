"""Orders of pixels."""

from __future__ import annotations

import torch

from gradtoken.metrics.replacing import ranks


def test_places_in_the_order_of_relevance() -> None:
    maps = torch.tensor([[[0.5, 2.0], [0.5, -1.0]]])
    assert ranks(maps).tolist() == [[1, 0, 2, 3]]
