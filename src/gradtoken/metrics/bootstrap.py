"""Means with 95% bootstrap intervals over images."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 10_000


class Interval(NamedTuple):
    """A mean over instances, its 95% interval over images, and the number of instances."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(
    values: np.ndarray[Any, Any], images: np.ndarray[Any, Any], *, seed: int = 0
) -> Interval:
    """Mean of per-instance values with a percentile bootstrap that resamples whole images.

    Args:
        values: (instances,) figures; NaN ones are left out.
        images: (instances,) which image each instance is of.

    Pass differences of two methods' values on the same instances for a paired interval.
    """
    kept = np.isfinite(values)
    values = values[kept]
    _, position = np.unique(images[kept], return_inverse=True)
    if not len(values):
        return Interval(np.nan, np.nan, np.nan, 0)
    sums = np.bincount(position, weights=values)
    counts = np.bincount(position).astype(float)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=RESAMPLES)
    means = (weights @ sums) / (weights @ counts)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), len(values))
