"""Showing images of any number of channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.images.preprocess import Preprocess
from gradtoken.images.rendering import render


def ramp(channels: int, scale: float = 1.0) -> Tensor:
    """Channel c holds (c + 1) / channels * scale at the right, 0 at the left."""
    row = torch.linspace(0, scale, 11)
    return torch.stack([(c + 1) / channels * row.expand(4, -1) for c in range(channels)])


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_render_one_and_three_channels() -> None:
    grey = pixels(render(ramp(1), None))
    assert grey.shape == (4, 11, 3)
    assert np.abs(grey[0, :, 0] - np.linspace(0, 1, 11) * 255).max() <= 0.51
    assert (grey[..., 0] == grey[..., 2]).all()
    assert pixels(render(ramp(3), None))[0, -1].tolist() == [85, 170, 255]


def test_render_two_and_five_channels() -> None:
    assert pixels(render(ramp(5), None))[0, -1].tolist() == [51, 102, 153]
    assert pixels(render(ramp(2), None))[0, -1].tolist() == [191] * 3


def test_render_by_indices() -> None:
    assert pixels(render(ramp(5), (4, 2, 0)))[0, -1].tolist() == [255, 153, 51]
    assert pixels(render(ramp(5), (1,)))[0, -1].tolist() == [102] * 3


def test_render_scales_other_units() -> None:
    shown = pixels(render(ramp(4, 4000.0), (3, 2, 1)))
    assert shown[0, -1].tolist() == [255, 191, 128]
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert pixels(render(ramp(3, 2.0), None))[0, -1].tolist() == [170, 255, 255]  # RGB is clipped
    assert pixels(render(torch.full((4, 2, 2), 7.0), None)).max() == 255


def test_render_by_function() -> None:
    def index(values: Tensor) -> Image.Image:
        result = (values[1] - values[0]).clamp(0, 1) * 255
        return Image.fromarray(result.byte().numpy())

    assert pixels(render(ramp(4), index))[0, -1].tolist() == [63] * 3
    for wrong, words in [
        (lambda v: v[:3], "returned Tensor"),
        (lambda v: Image.new("L", (3, 3)), r"11x4 pixels, it returned \(3, 3\)"),
    ]:
        with pytest.raises(ModelError, match=words):
            render(ramp(4), wrong)


@pytest.mark.parametrize(
    ("rendering", "words"),
    [
        ((0, 1), "shows no image; give the indices of three channels"),
        ((0, 1, 2.0), "shows no image"),
        ((-1, 0, 1), "shows no image"),
        ("rgb", "shows no image"),
        ((), "shows no image"),
        ((0, 1, 4), "shows channel 4, and there are 4, 0 to 3"),
    ],
)
def test_check_rendering_rejects_missing_channels(rendering: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Preprocess(lambda x: x, channels=4, rendering=rendering)
