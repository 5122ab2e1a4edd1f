"""Intervals over images."""

from __future__ import annotations

import numpy as np
import pytest

from gradtoken.metrics.bootstrap import mean_interval, ratio_interval


def test_ratio_interval_covers_ratio_of_sums() -> None:
    rng = np.random.default_rng(0)
    below = rng.integers(50, 150, 300).astype(float)
    above = np.floor(below * rng.uniform(0.4, 0.8, 300))
    images = np.arange(300)
    interval = ratio_interval([(above, below)], images)
    assert interval.mean == pytest.approx(above.sum() / below.sum())
    assert interval.low < interval.mean < interval.high
    assert interval.high - interval.low < 0.05
    both = ratio_interval([(above, below), (below - above, below)], images)
    assert both.mean == pytest.approx(0.5)
    assert both.n == 300


def test_mean_interval_equals_ratio_to_count() -> None:
    values, images = np.array([1.0, 2.0, np.nan, 6.0]), np.array(["a", "a", "b", "c"])
    interval = mean_interval(values, images)
    assert interval.mean == 3
    assert interval.n == 3
    assert interval.low == pytest.approx(1.5)
    assert interval.high == 6
    assert mean_interval(np.array([np.nan]), np.array(["a"])).n == 0
