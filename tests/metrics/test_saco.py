"""SaCo against a plain loop over pixels, groups and pairs, and its corner cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.errors import MethodError
from gradtoken.metrics.saco import saco
from gradtoken.models import Model
from tests.conftest import images_for

NORMALISATION = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
CLASSES = torch.tensor([3, 7, 1])


@pytest.fixture
def toy(model: Model) -> tuple[Model, Tensor, Tensor]:
    images = images_for((64, 64), 3)
    tokens = gradtoken.explain(model, images, [[int(c)] for c in CLASSES], method="cdam").tokens
    return model, images, torch.nn.functional.interpolate(tokens, (64, 64), mode="bilinear")[:, 0]


def by_hand(model: Model, image: Tensor, relevance: Tensor, label: int, groups: int) -> float:
    """One pixel, one group, one pair at a time."""
    values = relevance.flatten().double().numpy()
    order = np.argsort(-values, kind="stable")
    colour = image.flatten(1).mean(1)
    clean = float(model(image[None]).softmax(-1)[0, label])
    relevances, drops = [], []
    for g in range(groups):
        changed, total, count = image.clone(), 0.0, 0
        for rank, place in enumerate(order):
            if rank * groups // len(order) == g:
                changed[:, place // 64, place % 64] = colour
                total, count = total + values[place], count + 1
        relevances.append(total / count)
        drops.append(clean - float(model(changed[None]).softmax(-1)[0, label]))
    above = below = 0.0
    for i in range(groups):
        for j in range(i + 1, groups):
            weight = relevances[i] - relevances[j]
            above += weight if drops[i] >= drops[j] else -weight
            below += abs(weight)
    return above / below


@pytest.mark.parametrize("groups", [10, 7, 2])
def test_saco_equals_plain_loop(toy, groups: int) -> None:
    model, images, maps = toy
    result = saco(model, images, maps, CLASSES, groups=groups, **NORMALISATION)
    expected = [
        by_hand(model, image, relevance, int(label), groups)
        for image, relevance, label in zip(images, maps, CLASSES, strict=True)
    ]
    np.testing.assert_allclose(result.numpy(), expected, rtol=0, atol=1e-6)


def test_saco_is_one_for_a_map_of_drops() -> None:
    """The class's logit is the sum of a row of pixels, each of which is worth another amount."""
    worth = torch.tensor([5.0, 1.0, 3.0, 0.0, 2.0, 4.0]).double()

    def predict(images: Tensor) -> Tensor:
        value = (images[:, 0, 0] * worth).sum(1, keepdim=True)
        return torch.cat([value, torch.zeros_like(value)], dim=1)

    image = torch.ones(1, 3, 1, 6).double()
    options = {"groups": 6, "fill": "grey", "activation": "none", **NORMALISATION}
    one = torch.tensor([0])
    maps = worth.view(1, 1, 6)
    assert float(saco(predict, image, maps, one, **options)) == pytest.approx(1)
    assert float(saco(predict, image, 3 * maps + 1, one, **options)) == pytest.approx(1)
    assert float(saco(predict, image, -maps, one, **options)) == pytest.approx(-1)
    swapped = maps.clone()
    swapped[0, 0, [0, 5]] = maps[0, 0, [5, 0]]
    pairs = sum(abs(int(a) - int(b)) for a in worth for b in worth) / 2
    assert float(saco(predict, image, swapped, one, **options)) == pytest.approx(1 - 2 / pairs)


def test_saco_of_constant_map_is_nan(toy) -> None:
    model, images, maps = toy
    maps[1] = 0.25
    result = saco(model, images, maps, CLASSES, **NORMALISATION)
    assert result.isnan().tolist() == [False, True, False]


def test_saco_rejects_invalid_arguments(toy) -> None:
    model, images, maps = toy
    with pytest.raises(MethodError, match="groups=1 is not possible; use 2 to 4096"):
        saco(model, images, maps, CLASSES, groups=1, **NORMALISATION)
    with pytest.raises(MethodError, match=r"maps of shape \(3, 32, 64\) do not fit images"):
        saco(model, images, maps[:, ::2], CLASSES, **NORMALISATION)
    maps[0, 0, 0] = torch.nan
    with pytest.raises(MethodError, match="NaN or infinite relevance"):
        saco(model, images, maps, CLASSES, **NORMALISATION)
