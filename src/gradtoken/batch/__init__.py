"""Maps for whole data sets: run, read, report. See docs/batch.md."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradtoken.batch.job import Job
    from gradtoken.batch.results.read import Map, Results, read
    from gradtoken.batch.results.reporting import report
    from gradtoken.batch.running import Progress, Summary, run
    from gradtoken.batch.sources.listing import Source
    from gradtoken.batch.sources.tables import Columns
    from gradtoken.batch.target_spec import Asked

_HOMES = {
    "Asked": "target_spec",
    "Columns": "sources.tables",
    "Job": "job",
    "Map": "results.read",
    "Progress": "running",
    "Results": "results.read",
    "Source": "sources.listing",
    "Summary": "running",
    "read": "results.read",
    "report": "results.reporting",
    "run": "running",
}

__all__ = [
    "Asked",
    "Columns",
    "Job",
    "Map",
    "Progress",
    "Results",
    "Source",
    "Summary",
    "read",
    "report",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that nothing waits for Arrow, Ray or torch before."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gradtoken.batch' has no attribute {name!r}")
    return getattr(import_module(f"gradtoken.batch.{_HOMES[name]}"), name)
