"""Relevance mass and rank accuracy against plain loops over pixels, and their corner cases."""

from __future__ import annotations

import pytest
import torch

from gradtoken.errors import MethodError
from gradtoken.metrics.relevance_accuracy import mass_accuracy, rank_accuracy

GENERATOR = torch.Generator().manual_seed(0)
MAPS = torch.randn(5, 9, 7, generator=GENERATOR)
MASKS = torch.rand(5, 9, 7, generator=GENERATOR) < 0.3
IGNORE = torch.rand(5, 9, 7, generator=GENERATOR) < 0.2


def by_hand(b: int, ignore: torch.Tensor | None) -> tuple[float, float]:
    """One pixel at a time."""
    pixels = [
        (float(MAPS[b, y, x]), bool(MASKS[b, y, x]))
        for y in range(9)
        for x in range(7)
        if ignore is None or not ignore[b, y, x]
    ]
    whole = sum(value for value, _ in pixels if value > 0)
    mass = sum(value for value, inside in pixels if value > 0 and inside) / whole
    size = sum(inside for _, inside in pixels)
    best = sorted(pixels, reverse=True)[:size]
    return mass, sum(inside for _, inside in best) / size


@pytest.mark.parametrize("ignore", [None, IGNORE], ids=["all", "ignore"])
def test_accuracies_equal_plain_loops(ignore: torch.Tensor | None) -> None:
    mass, rank = mass_accuracy(MAPS, MASKS, ignore), rank_accuracy(MAPS, MASKS, ignore)
    for b in range(5):
        expected = by_hand(b, ignore)
        assert abs(float(mass[b]) - expected[0]) < 1e-6
        assert abs(float(rank[b]) - expected[1]) < 1e-6


def test_accuracies_of_perfect_constant_and_blank_maps() -> None:
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, :2, :2] = True
    assert float(mass_accuracy(masks.double(), masks)) == 1
    assert float(rank_accuracy(masks.double(), masks)) == 1
    for value in (0.0, -1.0, 2.0):
        constant = torch.full((1, 4, 4), value)
        assert float(rank_accuracy(constant, masks)) == 4 / 16
        assert float(mass_accuracy(constant, masks)) == (4 / 16 if value > 0 else 0)


def test_equal_pixels_share_the_places_that_are_left() -> None:
    maps = torch.tensor([[[3.0, 1.0, 1.0, 1.0, 0.0]]])
    masks = torch.tensor([[[True, True, False, False, True]]])
    assert float(rank_accuracy(maps, masks)) == pytest.approx((1 + 2 * 1 / 3) / 3)


def test_ignored_pixels_are_not_among_the_most_relevant() -> None:
    maps = torch.tensor([[[9.0, 2.0, 1.0, -1.0]]])
    masks = torch.tensor([[[True, True, False, False]]])
    ignore = torch.tensor([[[True, False, False, False]]])
    assert float(rank_accuracy(maps, masks, ignore)) == 1
    assert float(mass_accuracy(maps, masks, ignore)) == pytest.approx(2 / 3)


def test_accuracies_without_mask_are_nan() -> None:
    nothing = torch.zeros(1, 3, 3, dtype=torch.bool)
    for metric in (mass_accuracy, rank_accuracy):
        assert metric(torch.rand(1, 3, 3), nothing).isnan().all()
        assert metric(torch.rand(1, 3, 3), ~nothing, ~nothing).isnan().all()


def test_accuracies_reject_non_finite_relevance() -> None:
    maps = MAPS.clone()
    maps[2, 0, 0] = torch.nan
    for metric in (mass_accuracy, rank_accuracy):
        with pytest.raises(MethodError, match="NaN or infinite relevance"):
            metric(maps, MASKS)
