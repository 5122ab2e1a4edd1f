"""Intervals over images."""

from __future__ import annotations

import numpy as np
import pytest

from gradtoken.metrics.bootstrap import mean_interval, ratio_interval


def test_a_ratio_is_of_sums_and_its_interval_covers_it() -> None:
    rng = np.random.default_rng(0)
    below = rng.integers(50, 150, 300).astype(float)
    above = np.floor(below * rng.uniform(0.4, 0.8, 300))
    images = np.arange(300)
    found = ratio_interval([(above, below)], images)
    assert found.mean == pytest.approx(above.sum() / below.sum())
    assert found.low < found.mean < found.high
    assert found.high - found.low < 0.05
    both = ratio_interval([(above, below), (below - above, below)], images)
    assert both.mean == pytest.approx(0.5)
    assert both.n == 300


def test_a_mean_is_the_ratio_to_a_count() -> None:
    values, images = np.array([1.0, 2.0, np.nan, 6.0]), np.array(["a", "a", "b", "c"])
    found = mean_interval(values, images)
    assert found.mean == 3
    assert found.n == 3
    assert found.low == pytest.approx(1.5)
    assert found.high == 6
    assert mean_interval(np.array([np.nan]), np.array(["a"])).n == 0
