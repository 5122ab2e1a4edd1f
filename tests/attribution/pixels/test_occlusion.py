"""Occlusion against loops over covered images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.attribution.pixels.by_hand import CLASSES, maps_of


def test_occlusion_equals_difference_of_covered_images(model: Model, batch: Tensor) -> None:
    logits, maps = model(batch), maps_of(model, batch, "occlusion")
    for b, image in enumerate(batch):
        for token in (0, 13, 63):
            row, column = divmod(token, 8)
            covered = image.clone()
            covered[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0
            expected = (logits[b] - model(covered[None])[0])[CLASSES]
            torch.testing.assert_close(maps[b, :, token], expected)


def test_occlusion_with_windows_and_strides(model: Model, batch: Tensor) -> None:
    maps = maps_of(model, batch, "occlusion", window=4, stride=4)
    covered = batch[0].clone()
    covered[:, 32:, :32] = 0
    expected = (model(batch)[0] - model(covered[None])[0])[CLASSES]
    for token in (32, 35, 56, 59):
        torch.testing.assert_close(maps[0, :, token], expected)
    with pytest.raises(MethodError, match="so some tokens would never be covered"):
        make_method("occlusion", window=2, stride=3)
