"""Means with 95% bootstrap intervals over images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
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
        values: (instances,) of a metric; NaN values are left out.
        images: (instances,) the image of each instance.
        seed: of the bootstrap.

    Pass differences of two methods' values on the same instances for a paired interval.
    """
    kept = np.isfinite(values)
    values = values[kept]
    if not len(values):
        return Interval(np.nan, np.nan, np.nan, 0)
    return ratio_interval([(values, np.ones_like(values))], images[kept], seed=seed)


@lru_cache(maxsize=2)
def _resampled(count: int, seed: int) -> np.ndarray[Any, Any]:
    """How often each of `count` images is drawn in each resample, (RESAMPLES, count)."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return drawn.astype(np.float32)


def ratio_interval(
    pairs: Sequence[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
    images: np.ndarray[Any, Any],
    *,
    seed: int = 0,
) -> Interval:
    """The mean over pairs of sum(above) / sum(below), with its bootstrap interval over images.

    Args:
        pairs: (instances,) counts above and below.
        images: (instances,) the image of each instance.
        seed: of the resampling.
    """
    mean, means = _resampled_ratios(pairs, images, seed)
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return Interval(mean, float(low), float(high), len(images))


def ratio_difference_interval(
    pairs: Sequence[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
    others: Sequence[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
    images: np.ndarray[Any, Any],
    *,
    seed: int = 0,
) -> Interval:
    """The difference of two ratios on the same instances, with its paired bootstrap interval.

    Args:
        pairs: as for `ratio_interval`.
        others: the same counts of another method, which are subtracted.
        images: (instances,) the image of each instance.
        seed: of the resampling.
    """
    mean, means = _resampled_ratios(pairs, images, seed)
    other_mean, other_means = _resampled_ratios(others, images, seed)
    low, high = np.nanpercentile(means - other_means, [2.5, 97.5])
    return Interval(mean - other_mean, float(low), float(high), len(images))


def _resampled_ratios(
    pairs: Sequence[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
    images: np.ndarray[Any, Any],
    seed: int,
) -> tuple[float, Any]:
    """The mean over pairs of sum(above) / sum(below), and that of each resample."""
    _, position = np.unique(images, return_inverse=True)
    count = int(position.max()) + 1
    weights = _resampled(count, seed)
    means: Any = 0.0
    mean = 0.0
    for above, below in pairs:
        sums = [np.bincount(position, weights=v, minlength=count) for v in (above, below)]
        with np.errstate(divide="ignore", invalid="ignore"):
            means = means + (weights @ sums[0]) / (weights @ sums[1]) / len(pairs)
        mean += float(above.sum() / below.sum()) / len(pairs)
    return mean, means
