"""What replaces pixels."""

from __future__ import annotations

import pytest
import torch

from gradtoken.errors import MethodError
from gradtoken.images.fills import filled

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)
IMAGES = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)).double()


def test_filled_black_is_zero_before_normalisation() -> None:
    fill = filled(IMAGES, "black", MEAN, STD)
    for channel in range(3):
        value = fill[1, channel] * STD[channel] + MEAN[channel]
        torch.testing.assert_close(value, torch.zeros(16, 24).double(), atol=1e-6, rtol=0)


def test_filled_grey_mean_and_blur() -> None:
    assert not filled(IMAGES, "grey", MEAN, STD).any()
    mean = filled(IMAGES, "mean", MEAN, STD)
    assert mean.shape == IMAGES.shape
    torch.testing.assert_close(mean[0, 2, 3, 4], IMAGES[0, 2].mean())
    blurred = filled(IMAGES, "blur", MEAN, STD)
    weights = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * 5.0**2)).double()
    weights = weights / weights.sum()
    by_hand = (IMAGES[0, 1, 3:14, 7:18] * weights[:, None] * weights[None]).sum()
    torch.testing.assert_close(blurred[0, 1, 8, 12], by_hand, rtol=1e-5, atol=1e-7)


def test_filled_rejects_unknown_fill() -> None:
    with pytest.raises(MethodError, match="no fill is named 'pink'; use 'black', 'grey'"):
        filled(IMAGES, "pink", MEAN, STD)  # type: ignore[arg-type]
