"""Maps for whole data sets: run, read, report. See docs/batch.md."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradtoken.batch.asked import Asked
    from gradtoken.batch.job import Job
    from gradtoken.batch.reading import Map, Results, read
    from gradtoken.batch.reporting import report
    from gradtoken.batch.running import Progress, Summary, run
    from gradtoken.batch.sources import Source
    from gradtoken.batch.tables import Columns

_HOMES = {
    "Asked": "asked",
    "Columns": "tables",
    "Job": "job",
    "Map": "reading",
    "Progress": "running",
    "Results": "reading",
    "Source": "sources",
    "Summary": "running",
    "read": "reading",
    "report": "reporting",
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
