"""Localisation metrics against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gradtoken.metrics import Coverage, energy, mean_interval, pointing, share, token_ap

COVERAGE = torch.tensor([[1.0, 0.6, 0.0, 0.0], [0.0, 0.2, 0.9, 0.0]]).double()


def test_coverage_is_fraction_of_token_pixels() -> None:
    masks = torch.zeros(1, 4, 8, dtype=torch.bool)
    masks[0, :2, :3] = True
    coverage = Coverage.of_masks(masks, (2, 4)).tokens
    assert coverage.tolist() == [[1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]


def test_pointing_values() -> None:
    relevance = torch.tensor([[0.1, 0.9, 0.3, 0.0], [0.0, 0.9, 0.1, 0.2]]).double()
    assert pointing(relevance, COVERAGE).tolist() == [1.0, 0.0]


def test_share_and_energy_use_positive_relevance() -> None:
    relevance = torch.tensor([[2.0, 1.0, 1.0, 4.0], [-5.0, 1.0, 2.0, -1.0]]).double()
    assert share(relevance, COVERAGE).tolist() == pytest.approx([2.6 / 3.7, 2.0 / 2.6])
    assert energy(relevance, COVERAGE).tolist() == pytest.approx([2.6 / 8, 2.0 / 3])


@pytest.mark.parametrize("blank", [0.0, -1.0])
def test_metrics_of_map_without_positive_relevance_are_zero(blank: float) -> None:
    """Token 0 is on the first object, so that the first of equal tokens would be a hit."""
    relevance = torch.full((2, 4), blank).double()
    for metric in (pointing, share, energy):
        assert metric(relevance, COVERAGE).tolist() == [0.0, 0.0]
    negative = torch.tensor([[-0.1, -0.5, -0.5, -0.5]] * 2).double()
    assert pointing(negative, COVERAGE).tolist() == [0.0, 0.0]


def test_metrics_of_absent_object_are_nan() -> None:
    coverage = torch.tensor([[0.0] * 4, [0.0, 1.0, 0.0, 0.0]]).double()
    relevance = torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2).double()
    for metric in (pointing, share, energy, token_ap):
        assert metric(relevance, coverage)[0].isnan()
        assert metric(relevance, coverage)[1] < 1


def test_share_is_zero_for_relevance_beside_objects() -> None:
    relevance = torch.tensor([[0.0, 0.0, 0.0, 2.0], [-1.0, 0.0, 0.0, 1.0]]).double()
    assert share(relevance, COVERAGE).tolist() == [0.0, 0.0]
    assert energy(relevance, COVERAGE).tolist() == [0.0, 0.0]


def test_pointing_ties_share_hit() -> None:
    relevance = torch.tensor([[0.5, 0.1, 0.5, 0.5], [0.3, 0.3, 0.3, 0.3]]).double()
    expected = [1 / 3, 1 / 4]
    assert pointing(relevance, COVERAGE).tolist() == pytest.approx(expected)
    flipped = pointing(relevance.flip(1), COVERAGE.flip(1))
    assert flipped.tolist() == pytest.approx(expected)


def test_pointing_is_nan_for_object_below_coverage() -> None:
    coverage = torch.tensor([[0.29, 0.29, 0.0, 0.0], [0.0, 0.31, 0.0, 0.0]]).double()
    relevance = torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2).double()
    hits = pointing(relevance, coverage)
    assert hits[0].isnan()
    assert hits[1] == 0


def test_coverage_excludes_ignored_pixels() -> None:
    """Tokens of four pixels; the second is ignored whole, the third by a half."""
    masks = torch.zeros(1, 2, 8, dtype=torch.bool)
    masks[0, :, 0], masks[0, 0, 4] = True, True
    ignore = torch.zeros(2, 8, dtype=torch.bool)
    ignore[:, 2:4], ignore[:, 5] = True, True
    coverage = Coverage.of_masks(masks, (1, 4), ignore)
    assert coverage.tokens.tolist() == [[0.5, 0.0, 0.25, 0.0]]
    assert coverage.counted.tolist() == [1.0, 0.0, 0.5, 1.0]
    relevance = torch.tensor([[1.0, 9.0, 2.0, 0.5]]).double()
    metrics = coverage.metrics(relevance.view(1, 1, 4))
    assert metrics["pointing"].tolist() == [1.0]
    assert metrics["energy"].tolist() == pytest.approx([(0.5 + 0.5) / (1 + 1 + 0.5)])
    assert metrics["share"].tolist() == [1.0]
    # Tokens 0 and 2 are covered by half of what counts: neither by more than half.
    assert token_ap(relevance, coverage.tokens, coverage.counted).isnan().all()
    masks[0, 1, 4] = True
    coverage = Coverage.of_masks(masks, (1, 4), ignore)
    assert token_ap(relevance, coverage.tokens, coverage.counted).tolist() == [1.0]
    assert token_ap(relevance, coverage.tokens).isnan().all()


def test_token_ap_values() -> None:
    relevance = torch.tensor([[0.9, 0.1, 0.5, 0.0], [0.0, 0.1, 0.2, 0.3]]).double()
    precision = token_ap(relevance, COVERAGE)
    assert precision.tolist() == pytest.approx([(1 + 2 / 3) / 2, 1 / 2])
    assert token_ap(relevance, torch.zeros_like(COVERAGE)).isnan().all()


def test_mean_interval_resamples_images() -> None:
    rng = np.random.default_rng(0)
    per_image = rng.normal(0.5, 0.1, 400)
    values = np.repeat(per_image, 3)
    images = np.repeat(np.arange(400), 3)
    mean, low, high, n = mean_interval(values, images)
    assert mean == pytest.approx(values.mean())
    assert n == 1200
    half = 1.96 * per_image.std() / math.sqrt(400)
    assert high - mean == pytest.approx(half, rel=0.1)
    assert mean - low == pytest.approx(half, rel=0.1)


def test_mean_interval_omits_nan() -> None:
    interval = mean_interval(np.array([1.0, np.nan, 3.0]), np.array([0, 0, 1]))
    assert (interval.mean, interval.n) == (2.0, 2)
    assert math.isnan(mean_interval(np.array([np.nan]), np.array([0])).mean)


def test_coverage_figures_is_deprecated() -> None:
    coverage, maps = Coverage(COVERAGE), torch.arange(8.0).view(2, 1, 4)
    with pytest.warns(DeprecationWarning, match="use Coverage.metrics"):
        former = coverage.figures(maps)
    for name, values in coverage.metrics(maps).items():
        assert torch.equal(former[name], values)
