"""Input x gradient against plain autograd."""

from __future__ import annotations

from torch import Tensor

from gradtoken.models import Model
from tests.attribution.pixels.by_hand import assert_each, by_token, gradient, maps_of


def test_input_x_gradient_equals_equation(model: Model, batch: Tensor) -> None:
    def by_hand(image: Tensor, label: int) -> Tensor:
        return by_token(image * gradient(model, image, label))

    assert_each(model, batch, maps_of(model, batch, "input-x-gradient"), by_hand)
