"""Localisation figures against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gradtoken.metrics import Coverage, energy, mean_interval, pointing, share, token_ap

COVERAGE = torch.tensor([[1.0, 0.6, 0.0, 0.0], [0.0, 0.2, 0.9, 0.0]]).double()


def test_coverage_is_the_fraction_of_a_tokens_pixels() -> None:
    masks = torch.zeros(1, 4, 8, dtype=torch.bool)
    masks[0, :2, :3] = True
    found = Coverage.of_masks(masks, (2, 4)).tokens
    assert found.tolist() == [[1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]


def test_pointing() -> None:
    relevance = torch.tensor([[0.1, 0.9, 0.3, 0.0], [0.0, 0.9, 0.1, 0.2]]).double()
    assert pointing(relevance, COVERAGE).tolist() == [1.0, 0.0]


def test_share_and_energy_count_positive_relevance_only() -> None:
    relevance = torch.tensor([[2.0, 1.0, 1.0, 4.0], [-5.0, 1.0, 2.0, -1.0]]).double()
    assert share(relevance, COVERAGE).tolist() == pytest.approx([2.6 / 3.7, 2.0 / 2.6])
    assert energy(relevance, COVERAGE).tolist() == pytest.approx([2.6 / 8, 2.0 / 3])


@pytest.mark.parametrize("blank", [0.0, -1.0])
def test_a_map_without_positive_relevance_finds_nothing(blank: float) -> None:
    """Token 0 is on the first object, so that the first of equal tokens would be a hit."""
    relevance = torch.full((2, 4), blank).double()
    for metric in (pointing, share, energy):
        assert metric(relevance, COVERAGE).tolist() == [0.0, 0.0]
    negative = torch.tensor([[-0.1, -0.5, -0.5, -0.5]] * 2).double()
    assert pointing(negative, COVERAGE).tolist() == [0.0, 0.0]


def test_an_object_that_is_not_there_has_no_values() -> None:
    coverage = torch.tensor([[0.0] * 4, [0.0, 1.0, 0.0, 0.0]]).double()
    relevance = torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2).double()
    for metric in (pointing, share, energy, token_ap):
        assert metric(relevance, coverage)[0].isnan()
        assert metric(relevance, coverage)[1] < 1


def test_relevance_beside_all_objects_is_a_share_of_zero() -> None:
    relevance = torch.tensor([[0.0, 0.0, 0.0, 2.0], [-1.0, 0.0, 0.0, 1.0]]).double()
    assert share(relevance, COVERAGE).tolist() == [0.0, 0.0]
    assert energy(relevance, COVERAGE).tolist() == [0.0, 0.0]


def test_equally_relevant_tokens_share_the_hit_whatever_their_order() -> None:
    relevance = torch.tensor([[0.5, 0.1, 0.5, 0.5], [0.3, 0.3, 0.3, 0.3]]).double()
    expected = [1 / 3, 1 / 4]
    assert pointing(relevance, COVERAGE).tolist() == pytest.approx(expected)
    flipped = pointing(relevance.flip(1), COVERAGE.flip(1))
    assert flipped.tolist() == pytest.approx(expected)


def test_an_object_that_no_token_can_point_at_is_left_out() -> None:
    coverage = torch.tensor([[0.29, 0.29, 0.0, 0.0], [0.0, 0.31, 0.0, 0.0]]).double()
    relevance = torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2).double()
    found = pointing(relevance, coverage)
    assert found[0].isnan()
    assert found[1] == 0


def test_pixels_to_ignore_count_for_nothing() -> None:
    """Tokens of four pixels; the second is ignored whole, the third by a half."""
    masks = torch.zeros(1, 2, 8, dtype=torch.bool)
    masks[0, :, 0], masks[0, 0, 4] = True, True
    ignore = torch.zeros(2, 8, dtype=torch.bool)
    ignore[:, 2:4], ignore[:, 5] = True, True
    found = Coverage.of_masks(masks, (1, 4), ignore)
    assert found.tokens.tolist() == [[0.5, 0.0, 0.25, 0.0]]
    assert found.counted.tolist() == [1.0, 0.0, 0.5, 1.0]
    relevance = torch.tensor([[1.0, 9.0, 2.0, 0.5]]).double()
    figures = found.figures(relevance.view(1, 1, 4))
    assert figures["pointing"].tolist() == [1.0]
    assert figures["energy"].tolist() == pytest.approx([(0.5 + 0.5) / (1 + 1 + 0.5)])
    assert figures["share"].tolist() == [1.0]
    # Tokens 0 and 2 are covered by half of what counts: neither by more than half.
    assert token_ap(relevance, found.tokens, found.counted).isnan().all()
    masks[0, 1, 4] = True
    found = Coverage.of_masks(masks, (1, 4), ignore)
    assert token_ap(relevance, found.tokens, found.counted).tolist() == [1.0]
    assert token_ap(relevance, found.tokens).isnan().all()


def test_token_ap() -> None:
    relevance = torch.tensor([[0.9, 0.1, 0.5, 0.0], [0.0, 0.1, 0.2, 0.3]]).double()
    found = token_ap(relevance, COVERAGE)
    assert found.tolist() == pytest.approx([(1 + 2 / 3) / 2, 1 / 2])
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


def test_mean_interval_leaves_out_nan() -> None:
    found = mean_interval(np.array([1.0, np.nan, 3.0]), np.array([0, 0, 1]))
    assert (found.mean, found.n) == (2.0, 2)
    assert math.isnan(mean_interval(np.array([np.nan]), np.array([0])).mean)
