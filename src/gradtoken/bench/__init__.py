"""Measuring methods side by side: images and targets, metrics, records and tables."""

import warnings
from typing import Any

from gradtoken.bench.cases import recognised
from gradtoken.bench.run import METRICS, column, measure

__all__ = ["METRICS", "column", "measure", "recognised"]


def __getattr__(name: str) -> Any:
    if name == "FIGURES":
        warnings.warn(
            "gradtoken.bench.FIGURES is deprecated; use METRICS instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        return METRICS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
