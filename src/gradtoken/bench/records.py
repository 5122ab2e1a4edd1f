"""The records of a run: a metric of a method on an object of an image, or why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

COLUMNS = ("picture", "object", "method", "metric", "value", "reason")
FAILED = "failed@"
"""Prefix of the metric of a record that says why a method has no value for an image."""
SKIPPED = "skipped@object"
"""Metric of a record, of no method, that says why an object of an image is left out."""


class Record(NamedTuple):
    """One metric of one method on one object of an image; with a reason, there is no value."""

    picture: str
    object: str
    method: str
    metric: str
    value: float
    reason: str = ""


@dataclass(frozen=True)
class Failure:
    """The images on which a method lacks some or all of its values.

    Args:
        count: number of these images.
        of: number of images on which the method was run.
        whole: number of images on which it gave no value at all.
        reason: of the first failure.
    """

    count: int
    of: int
    whole: int
    reason: str


@dataclass(frozen=True)
class Records:
    """Records as columns, in the order they were made."""

    picture: np.ndarray[Any, Any]
    object: np.ndarray[Any, Any]
    method: np.ndarray[Any, Any]
    metric: np.ndarray[Any, Any]
    value: np.ndarray[Any, Any]
    reason: np.ndarray[Any, Any]

    @classmethod
    def of(cls, records: Iterable[Record]) -> Records:
        """From single records."""
        rows = list(records)
        picture, object_, method, metric, reason = (
            np.array([row[i] for row in rows], dtype=object) for i in (0, 1, 2, 3, 5)
        )
        value = np.array([row.value for row in rows], dtype=float)
        return cls(picture, object_, method, metric, value, reason)

    def where(self, *, method: str | None = None, metric: str | None = None) -> Records:
        """Those of one method, one metric, or both."""
        selected = np.ones(len(self.value), dtype=bool)
        if method is not None:
            selected &= self.method == method
        if metric is not None:
            selected &= self.metric == metric
        return self._at(selected)

    def methods(self) -> list[str]:
        """Names of the methods that have values, in order of appearance."""
        return list(dict.fromkeys(self.method[self.reason == ""].tolist()))

    def metrics(self) -> list[str]:
        """Names of those that have values, in order of appearance."""
        return list(dict.fromkeys(self.metric[self.reason == ""].tolist()))

    def failures(self) -> dict[str, Failure]:
        """The failures of each method that failed on an image, by method."""
        is_failure = [metric.startswith(FAILED) for metric in self.metric.tolist()]
        failed = self._at(np.array(is_failure, dtype=bool))
        measured = self._at(self.reason == "")
        failures = {}
        for method in dict.fromkeys(failed.method.tolist()):
            own = failed.where(method=method)
            tried = set(self.where(method=method).picture.tolist())
            without_value = tried - set(measured.where(method=method).picture.tolist())
            failures[method] = Failure(
                count=len(set(own.picture.tolist())),
                of=len(tried),
                whole=len(without_value),
                reason=str(own.reason[0]),
            )
        return failures

    def skipped(self) -> dict[str, int]:
        """Number of objects left out, by reason."""
        reasons = self.where(metric=SKIPPED).reason.tolist()
        return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}

    def by_instance(self) -> dict[tuple[str, str], float]:
        """Values by (image, object)."""
        keys = zip(self.picture.tolist(), self.object.tolist(), strict=True)
        return dict(zip(keys, self.value.tolist(), strict=True))

    def _at(self, selected: np.ndarray[Any, Any]) -> Records:
        return Records(*(getattr(self, column)[selected] for column in COLUMNS))
