"""Integrated gradients against plain autograd."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gradtoken.images.fills import filled
from gradtoken.models import Model
from tests.attribution.pixels.by_hand import CLASSES, assert_each, by_token, gradient, maps_of

HALF = (0.5, 0.5, 0.5)


def test_integrated_gradients_equals_equation(model: Model, batch: Tensor) -> None:
    points, weights = np.polynomial.legendre.leggauss(6)

    def by_hand(image: Tensor, label: int) -> Tensor:
        start = filled(image[None], "mean", HALF, HALF)[0]
        total = sum(
            w / 2 * gradient(model, start + (p + 1) / 2 * (image - start), label)
            for p, w in zip(points, weights, strict=True)
        )
        return by_token((image - start) * total)

    maps = maps_of(model, batch, "integrated-gradients", steps=6, baseline="mean")
    assert_each(model, batch, maps, by_hand)


def test_integrated_gradients_is_complete(model: Model, batch: Tensor) -> None:
    maps = maps_of(model, batch, "integrated-gradients", steps=200, baseline="grey")
    change = (model(batch) - model(torch.zeros_like(batch)))[:, CLASSES]
    torch.testing.assert_close(maps.sum(-1), change, rtol=1e-2, atol=1e-3)
