"""Max-sensitivity against captum's on the same changes, and by hand."""

from __future__ import annotations

import pytest
import torch
from captum.metrics import sensitivity_max
from torch import Tensor

import gradtoken
from gradtoken.errors import MethodError
from gradtoken.metrics.max_sensitivity import max_sensitivity
from gradtoken.models import Model
from tests.conftest import images_for


@pytest.mark.parametrize("method", ["gae", "cdam"])
def test_max_sensitivity_equals_captum(model: Model, method: str) -> None:
    images = images_for((64, 64), 2)
    generator = torch.Generator().manual_seed(4)
    changes = [2 * torch.rand(images.shape, generator=generator) - 1 for _ in range(5)]

    def explain(pixels: Tensor) -> Tensor:
        return gradtoken.explain(model, pixels, 3, method=method).tokens[:, 0].flatten(1)

    def perturb(inputs: Tensor, radius: float = 0.1) -> Tensor:
        """Captum asks for every image's five changes at once, image by image."""
        assert len(inputs) == 10
        return inputs + radius * torch.stack(changes).transpose(0, 1).flatten(0, 1).double()

    result = max_sensitivity(explain, images, radius=0.1, samples=5, seed=4)
    expected = sensitivity_max(
        lambda pixels: (explain(pixels if torch.is_tensor(pixels) else pixels[0]),),
        images,
        perturb,
        perturb_radius=0.1,
        n_perturb_samples=5,
    )
    assert (result - expected).abs().max() < 1e-6
    assert (result > 0).all()


def test_max_sensitivity_by_hand() -> None:
    images = torch.tensor([[[[3.0, 4.0]]], [[[0.0, 0.0]]]]).double()
    result = max_sensitivity(lambda pixels: pixels.flatten(1), images, samples=3, seed=1)
    generator = torch.Generator().manual_seed(1)
    sizes = []
    for _ in range(3):
        drawn = torch.rand(2, 1, 1, 2, generator=generator)[0, 0, 0]
        sizes.append(sum(float(0.02 * (2 * value - 1)) ** 2 for value in drawn) ** 0.5)
    assert float(result[0]) == pytest.approx(max(sizes) / 5)
    assert result[1].isnan()
    constant = max_sensitivity(lambda pixels: torch.ones(2, 4), images)
    assert constant.tolist() == [0, 0]


def test_max_sensitivity_rejects_invalid_arguments() -> None:
    for options in ({"samples": 0}, {"radius": 0.0}, {"radius": float("nan")}):
        with pytest.raises(MethodError, match="are not possible; use at least one sample"):
            max_sensitivity(lambda pixels: pixels, torch.zeros(1, 3, 2, 2), **options)
