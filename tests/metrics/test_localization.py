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


def test_no_positive_relevance_is_nan() -> None:
    relevance = torch.full((2, 4), -1.0).double()
    assert share(relevance, COVERAGE).isnan().all()
    assert energy(relevance, COVERAGE).isnan().all()


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
