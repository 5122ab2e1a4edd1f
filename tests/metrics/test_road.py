"""Imputation against dense equations written out pixel by pixel, and ROAD against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.errors import MethodError
from gradtoken.metrics.imputation import imputed
from gradtoken.metrics.road import road
from gradtoken.models import Model
from tests.conftest import images_for

STD = (0.5, 0.25, 0.5)
CLASSES = torch.tensor([3, 7])


def dense(image: Tensor, away: Tensor) -> Tensor:
    """An equation for each deleted pixel, solved as a dense system."""
    height, width = away.shape
    spots = [(y, x) for y in range(height) for x in range(width) if away[y, x]]
    matrix = np.eye(len(spots))
    right = np.zeros((len(spots), len(image)))
    for i, (y, x) in enumerate(spots):
        around = {
            (y + down, x + along): 1 / 6 if down == 0 or along == 0 else 1 / 12
            for down in (-1, 0, 1)
            for along in (-1, 0, 1)
            if (down, along) != (0, 0) and 0 <= y + down < height and 0 <= x + along < width
        }
        whole = sum(around.values())
        for spot, weight in around.items():
            if away[spot]:
                matrix[i, spots.index(spot)] -= weight / whole
            else:
                right[i] += weight / whole * image[:, spot[0], spot[1]].numpy()
    result = image.clone()
    for (y, x), value in zip(spots, np.linalg.solve(matrix, right), strict=True):
        result[:, y, x] = torch.from_numpy(value)
    return result


@pytest.mark.parametrize("share", [0.02, 0.4, 0.9])
def test_imputed_solves_the_equations(share: float) -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(3, 12, 9, generator=generator).double()
    away = torch.rand(12, 9, generator=generator) < share
    result = imputed(image, away)
    assert (result - dense(image, away)).abs().max() < 1e-9
    assert torch.equal(result[:, ~away], image[:, ~away])


def test_imputed_of_a_plane_is_the_plane() -> None:
    """A linear image is its own mean of neighbours."""
    y, x = torch.meshgrid(torch.arange(10.0), torch.arange(8.0), indexing="ij")
    plane = torch.stack([2 * y - x, x + 5]).double()
    away = torch.zeros(10, 8, dtype=torch.bool)
    away[3:7, 2:6] = True
    torch.testing.assert_close(imputed(plane, away), plane)


def test_imputed_without_pixels_left_is_zero_and_without_deleted_ones_the_image() -> None:
    image = torch.randn(3, 5, 5)
    assert not imputed(image, torch.ones(5, 5, dtype=torch.bool)).any()
    assert torch.equal(imputed(image, torch.zeros(5, 5, dtype=torch.bool)), image)


@pytest.fixture
def toy(model: Model) -> tuple[Model, Tensor, Tensor]:
    images = images_for((64, 64), 2)
    tokens = gradtoken.explain(model, images, [[int(c)] for c in CLASSES], method="cdam").tokens
    return model, images, torch.nn.functional.interpolate(tokens, (64, 64), mode="bilinear")[:, 0]


@pytest.mark.parametrize(("order", "sign"), [("morf", 1), ("lerf", -1)])
def test_road_equals_plain_loop(toy, order: str, sign: int) -> None:
    model, images, maps = toy
    fractions = (0.05, 0.3)
    result = road(model, images, maps, CLASSES, order, std=STD, fractions=fractions, seed=3)
    drawn = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(3))
    assert result.fractions == (0.0, 0.05, 0.3)
    for b in range(2):
        ordered = np.argsort(-sign * maps[b].flatten().numpy(), kind="stable")
        for step, k in enumerate((0.0, *fractions)):
            away = torch.zeros(64 * 64, dtype=torch.bool)
            for place in ordered[: int(k * 64 * 64)]:
                away[place] = True
            away = away.view(64, 64)
            changed = dense(images[b], away)
            for c in range(3):
                changed[c] += 0.01 / STD[c] * drawn[c].double() * away
            logits = model(changed[None])[0]
            probability = float(logits.softmax(-1)[CLASSES[b]])
            assert abs(float(result.probability[b, step]) - probability) < 1e-6
            assert bool(result.top[b, step]) == (int(logits.argmax()) == int(CLASSES[b]))


def test_road_repeats_itself_and_leaves_the_generator_alone(toy) -> None:
    model, images, maps = toy
    torch.manual_seed(5)
    before = torch.get_rng_state()
    options = {"std": STD, "fractions": [0.5]}
    first, second = (road(model, images, maps, CLASSES, "morf", **options) for _ in range(2))
    assert torch.equal(first.probability, second.probability)
    assert torch.equal(before, torch.get_rng_state())


def test_road_rejects_invalid_arguments(toy) -> None:
    model, images, maps = toy
    with pytest.raises(MethodError, match="order='up' is unknown; use 'morf' or 'lerf'"):
        road(model, images, maps, CLASSES, "up", std=STD)  # type: ignore[arg-type]
    with pytest.raises(MethodError, match=r"fractions=\[1.5\] is not possible"):
        road(model, images, maps, CLASSES, "morf", std=STD, fractions=[1.5])
    with pytest.raises(MethodError, match=r"maps of shape \(2, 32, 64\) do not fit images"):
        road(model, images, maps[:, ::2], CLASSES, "morf", std=STD)
    maps[0, 0, 0] = torch.inf
    with pytest.raises(MethodError, match="NaN or infinite relevance"):
        road(model, images, maps, CLASSES, "morf", std=STD)
