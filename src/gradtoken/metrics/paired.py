"""Paired tests of two methods on the same images, corrected for the number of comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Numbers: TypeAlias = np.ndarray[Any, Any]
Pairs: TypeAlias = Sequence[tuple[Numbers, Numbers]]
"""(instances,) counts above and below; the metric is the mean over pairs of sum / sum."""

SWAPS = 100_000
"""Random swaps of a test; with few images, all that there are."""
_FEW = 16
_CHUNK = 2_000
_ROUNDING = 1e-9
"""Relative size of differences between equal numbers that were added in another order."""


@dataclass(frozen=True)
class Pairing:
    """A metric of two methods on the same instances.

    Args:
        ours: counts of one method. For a mean of values they are the values over ones.
        theirs: counts of the other.
        images: (instances,) the image of each instance.
    """

    ours: Pairs
    theirs: Pairs
    images: Numbers


def swap_tests(pairings: Sequence[Pairing], *, seed: int = 0) -> Numbers:
    """p of each pairing: how often a difference as large arises if the methods' names mean nothing.

    The two methods are swapped in random images, in all instances of an image together (a paired
    randomisation test, two-sided); with 16 images or fewer, in every way that there is.

    Args:
        pairings: the same swaps serve all of them. One without instances has p NaN.
        seed: of the swaps.
    """
    if not pairings:
        return np.array([])
    names, places = np.unique(
        np.concatenate([pairing.images for pairing in pairings]),
        return_inverse=True,
    )
    sums = _Sums(pairings, places, len(names))
    observed = sums.statistics(np.ones((1, len(names))))[0]
    least = np.abs(observed) * (1 - _ROUNDING)
    count, hits = 0, np.zeros(len(pairings))
    exact = len(names) <= _FEW
    for kept in _all_swaps(len(names)) if exact else _random_swaps(len(names), seed):
        with np.errstate(invalid="ignore"):
            hits += (np.abs(sums.statistics(kept)) >= least).sum(0)
        count += len(kept)
    p = hits / count if exact else (hits + 1) / (count + 1)
    return np.where(np.isfinite(observed), p, np.nan)


def holm(p: Numbers) -> Numbers:
    """p corrected for the number of comparisons; NaN stays, and is no comparison.

    Of m values the smallest is multiplied by m, the next by m - 1 and so on; none is smaller than
    one before it, and none above 1. Holm, Scandinavian Journal of Statistics 1979.

    Args:
        p: (comparisons,) uncorrected.
    """
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return corrected


class _Sums:
    """Counts by image, for all pairings at once."""

    def __init__(self, pairings: Sequence[Pairing], places: Numbers, count: int) -> None:
        self._pairs = [len(pairing.ours) for pairing in pairings]
        ours: list[Numbers] = []
        theirs: list[Numbers] = []
        start = 0
        for pairing in pairings:
            own = places[start : start + len(pairing.images)]
            start += len(pairing.images)
            for side, pairs in ((ours, pairing.ours), (theirs, pairing.theirs)):
                side.extend(
                    np.bincount(own, weights=values, minlength=count)
                    for pair in pairs
                    for values in pair
                )
        shape = (2 * sum(self._pairs), count)
        self._ours = np.array(ours, dtype=float).reshape(shape).T
        self._theirs = np.array(theirs, dtype=float).reshape(shape).T

    def statistics(self, kept: Numbers) -> Numbers:
        """Ours minus theirs, (swaps, pairings), where images with 0 in `kept` are swapped."""
        change = kept @ (self._ours - self._theirs)
        first = self._theirs.sum(0) + change
        second = self._ours.sum(0) - change
        with np.errstate(divide="ignore", invalid="ignore"):
            gaps = first[:, ::2] / first[:, 1::2] - second[:, ::2] / second[:, 1::2]
        ends = np.cumsum(self._pairs)
        return np.stack(
            [gaps[:, end - n : end].mean(1) for end, n in zip(ends, self._pairs, strict=True)],
            axis=1,
        )


def _all_swaps(images: int) -> Iterator[Numbers]:
    numbers = np.arange(1 << images)
    for start in range(0, len(numbers), _CHUNK):
        yield (numbers[start : start + _CHUNK, None] >> np.arange(images)) & 1


def _random_swaps(images: int, seed: int) -> Iterator[Numbers]:
    rng = np.random.default_rng(seed)
    for _ in range(SWAPS // _CHUNK):
        yield rng.integers(0, 2, (_CHUNK, images)).astype(float)
