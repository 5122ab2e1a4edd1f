"""Measuring methods side by side: on which instances, by which figures, into which tables."""

from gradtoken.bench.scenes import FIGURES, column, measure, recognised

__all__ = ["FIGURES", "column", "measure", "recognised"]
