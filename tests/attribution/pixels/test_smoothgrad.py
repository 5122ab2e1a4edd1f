"""SmoothGrad against plain autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from gradtoken.models import Model
from tests.attribution.pixels.by_hand import assert_each, by_token, gradient, maps_of


def test_smoothgrad_equals_mean_saliency_of_noisy_images(model: Model, batch: Tensor) -> None:
    def by_hand(image: Tensor, label: int) -> Tensor:
        torch.manual_seed(5)
        spread = float(image.max() - image.min()) * 0.1
        noisy = image + torch.normal(0, torch.full((4, 3, 64, 64), spread))
        total = torch.stack([gradient(model, sample, label).abs() for sample in noisy]).mean(0)
        return by_token(total.amax(0), "mean")

    with torch.random.fork_rng():
        maps = maps_of(model, batch, "smoothgrad", samples=4, noise=0.1, seed=5)
        assert_each(model, batch, maps, by_hand)
