"""Paired differences of a reference and every other method, and which of them are clear."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from gradtoken.bench.records import Records
from gradtoken.bench.summary import LOWER_IS_BETTER, RATIOS, Row, shown
from gradtoken.metrics.bootstrap import ratio_difference_interval
from gradtoken.metrics.paired import Numbers, Pairing, holm, swap_tests

_Values: TypeAlias = dict[str, dict[tuple[str, str], float]]
"""By metric, then by (image, object)."""

LEVEL = 0.05
"""Below it a corrected p is a clear difference."""


@dataclass(frozen=True)
class Difference(Row):
    """A metric of the reference minus that of a method, on the instances that both have.

    Args:
        p: of the paired randomisation test (`swap_tests`); NaN where nothing can be compared.
        p_corrected: the same, corrected by Holm for all comparisons of the run.
    """

    p: float
    p_corrected: float

    @property
    def clear(self) -> bool:
        """Whether the methods differ at the level of 5 % among all comparisons of the run."""
        return self.p_corrected < LEVEL

    @property
    def method_is(self) -> str:
        """Whether the method is "better" or "worse" than the reference; "level" if unclear."""
        if not self.clear:
            return "level"
        reference_is_less = self.interval.mean < 0
        return "worse" if reference_is_less == self.metric.startswith(LOWER_IS_BETTER) else "better"


def differences(records: Records, reference: str) -> list[Difference]:
    """The reference against each other method in every metric, corrected for all comparisons.

    Args:
        records: of a run.
        reference: the method that the others are compared with.
    """
    values = _by_metric(records)
    compared = [
        (method, metric, pairing)
        for method in records.methods()
        if method != reference
        for metric, pairing in _pairings(values.get(reference, {}), values[method])
    ]
    p = swap_tests([pairing for _, _, pairing in compared])
    corrected = holm(p)
    return [
        Difference(
            method,
            metric,
            ratio_difference_interval(pairing.ours, pairing.theirs, pairing.images),
            float(p[i]),
            float(corrected[i]),
        )
        for i, (method, metric, pairing) in enumerate(compared)
    ]


def _by_metric(records: Records) -> dict[str, _Values]:
    """Finite values by method, metric and (image, object)."""
    values: dict[str, _Values] = {}
    columns = (records.method, records.metric, records.picture, records.object, records.value)
    for method, metric, image, thing, value in zip(*(c.tolist() for c in columns), strict=True):
        if math.isfinite(value):
            values.setdefault(method, {}).setdefault(metric, {})[image, thing] = value
    return values


def _pairings(ours: _Values, theirs: _Values) -> Iterator[tuple[str, Pairing]]:
    """The metrics of a method on the instances that the reference has too."""
    for metric in shown(list(theirs)):
        (first, second), images = _common(ours, theirs, [metric])
        if len(images):
            ones = np.ones(len(images))
            yield metric, Pairing([(first[0], ones)], [(second[0], ones)], images)
    for metric, pairs in RATIOS.items():
        (first, second), images = _common(ours, theirs, [name for pair in pairs for name in pair])
        if len(images):
            yield metric, Pairing(_paired(first), _paired(second), images)


def _paired(counts: list[Numbers]) -> list[tuple[Numbers, Numbers]]:
    return list(zip(counts[::2], counts[1::2], strict=True))


def _common(
    ours: _Values, theirs: _Values, metrics: list[str]
) -> tuple[tuple[list[Numbers], list[Numbers]], Numbers]:
    """The values on instances of which both have all of the metrics, and their images."""
    sides = [[values.get(metric, {}) for metric in metrics] for values in (ours, theirs)]
    keys = [key for key in sides[1][0] if all(key in values for side in sides for values in side)]
    first, second = (
        [np.array([values[key] for key in keys], dtype=float) for values in side] for side in sides
    )
    return (first, second), np.array([image for image, _ in keys], dtype=object)
