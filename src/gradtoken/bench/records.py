"""What a run writes down: a metric of a method on an object of an image, or why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

COLUMNS = ("picture", "object", "method", "metric", "value", "reason")
FAILED = "failed@"
"""How the metric of a record begins that says why a method has no value for an image."""
SKIPPED = "skipped@object"
"""The metric of a record, of no method, that says why an object of an image is left out."""


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
    """The images on which a method has no value, or not all.

    Args:
        count: how many.
        of: on how many it was tried.
        whole: on how many of them it gave no value at all.
        reason: the first one.
    """

    count: int
    of: int
    whole: int
    reason: str


@dataclass(frozen=True)
class Records:
    """Many records as columns, in the order they were made."""

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
        picture, thing, method, metric, reason = (
            np.array([row[i] for row in rows], dtype=object) for i in (0, 1, 2, 3, 5)
        )
        value = np.array([row.value for row in rows], dtype=float)
        return cls(picture, thing, method, metric, value, reason)

    def where(self, *, method: str | None = None, metric: str | None = None) -> Records:
        """Those of one method, one metric, or both."""
        kept = np.ones(len(self.value), dtype=bool)
        if method is not None:
            kept &= self.method == method
        if metric is not None:
            kept &= self.metric == metric
        return self._kept(kept)

    def methods(self) -> list[str]:
        """Names of the methods that have values, in order of appearance."""
        return list(dict.fromkeys(self.method[self.reason == ""].tolist()))

    def metrics(self) -> list[str]:
        """Names of those that have values, in order of appearance."""
        return list(dict.fromkeys(self.metric[self.reason == ""].tolist()))

    def failures(self) -> dict[str, Failure]:
        """By method, what it failed on; only methods that failed on an image."""
        names = np.array([metric.startswith(FAILED) for metric in self.metric.tolist()], dtype=bool)
        failed, valued = self._kept(names), self._kept(self.reason == "")
        found = {}
        for method in dict.fromkeys(failed.method.tolist()):
            own = failed.where(method=method)
            tried = set(self.where(method=method).picture.tolist())
            without = tried - set(valued.where(method=method).picture.tolist())
            pictures = set(own.picture.tolist())
            found[method] = Failure(len(pictures), len(tried), len(without), str(own.reason[0]))
        return found

    def skipped(self) -> dict[str, int]:
        """How many objects were left out, by reason."""
        reasons = self.where(metric=SKIPPED).reason.tolist()
        return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}

    def by_instance(self) -> dict[tuple[str, str], float]:
        """Values by picture and object."""
        keys = zip(self.picture.tolist(), self.object.tolist(), strict=True)
        return dict(zip(keys, self.value.tolist(), strict=True))

    def _kept(self, kept: np.ndarray[Any, Any]) -> Records:
        return Records(*(getattr(self, column)[kept] for column in COLUMNS))
