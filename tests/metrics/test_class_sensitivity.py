"""Class sensitivity by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gradtoken.errors import TargetError
from gradtoken.metrics.class_sensitivity import (
    contrast_response,
    correlation,
    painted_out,
    present_coupling,
)


def test_correlation_equals_numpy() -> None:
    one, other = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0)).double()
    result = correlation(one, other)
    for b in range(3):
        assert float(result[b]) == pytest.approx(np.corrcoef(one[b], other[b])[0, 1])
    assert correlation(torch.ones(1, 4), torch.rand(1, 4)).isnan().all()


def test_present_coupling_counts_each_class_once() -> None:
    a, b, c = np.random.default_rng(0).normal(size=(3, 12))
    result = present_coupling(torch.tensor(np.stack([a, b, a + 9, c])), [4, 7, 4, 2])
    expected = np.mean([np.corrcoef(x, y)[0, 1] for x, y in ((a, b), (a, c), (b, c))])
    assert result == pytest.approx(expected)
    with pytest.raises(TargetError, match="at least two"):
        present_coupling(torch.rand(2, 12), [3, 3])


def test_contrast_response_by_hand() -> None:
    before = torch.tensor([[3.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    own = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    other = torch.tensor([[3.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    result = contrast_response(before, own, other)
    assert float(result[0]) == pytest.approx(0.75)
    assert result[1].isnan()
    assert float(result[2]) == 1


def test_painted_out_uses_surrounding_colour() -> None:
    images = torch.zeros(2, 3, 20, 20)
    images[0, 0], images[0, :, 8:12, 8:12] = 0.7, -1.0
    images[0, :, :2] = 9.0
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[0, 8:12, 8:12] = True
    masks[1] = True
    images[1] = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    result = painted_out(images, masks)
    expected = images[0].clone()
    expected[:, 8:12, 8:12] = torch.tensor([0.7, 0.0, 0.0])[:, None, None]
    torch.testing.assert_close(result[0], expected)
    torch.testing.assert_close(result[1, 1], images[1, 1].mean().expand(20, 20))
