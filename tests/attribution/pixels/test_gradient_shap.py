"""Gradient SHAP against plain autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gradtoken.images.fills import filled
from gradtoken.models import Model
from tests.attribution.pixels.by_hand import assert_each, by_token, gradient, maps_of


@pytest.mark.parametrize("noise", [0, 0.2])
def test_gradient_shap_equals_equation(model: Model, batch: Tensor, noise: float) -> None:
    """More samples than run at once: each chunk draws noise, baselines and points in turn."""

    def by_hand(image: Tensor, label: int) -> Tensor:
        torch.manual_seed(5)
        rng = np.random.RandomState(5)
        fills = ("black", "grey", "mean", "blur")
        about = model.preprocess
        baselines = [filled(image[None], fill, about.mean, about.std)[0] for fill in fills]
        total = torch.zeros_like(image)
        for count in (16, 4):
            noisy = image + torch.normal(0, torch.full((count, 3, 64, 64), float(noise)))
            chosen = rng.choice(4, count)
            for moved, c, point in zip(noisy, chosen, rng.uniform(0, 1, count), strict=True):
                start = baselines[c]
                total += (moved - start) * gradient(model, start + point * (moved - start), label)
        return by_token(total / 20)

    with torch.random.fork_rng():
        maps = maps_of(model, batch[:1], "gradient-shap", samples=20, noise=noise, seed=5)
        assert_each(model, batch[:1], maps, by_hand)
