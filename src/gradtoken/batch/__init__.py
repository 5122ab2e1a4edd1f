"""Maps for whole data sets: run, read, report. See docs/batch.md."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradtoken.batch.job import Job, Progress, Summary
    from gradtoken.batch.results.read import Map, Results, read
    from gradtoken.batch.results.reporting import report
    from gradtoken.batch.running import run
    from gradtoken.batch.sources.listing import Source
    from gradtoken.batch.sources.tables import Columns
    from gradtoken.batch.target_spec import TargetSpec

_MODULES = {
    "Columns": "sources.tables",
    "Job": "job",
    "Map": "results.read",
    "Progress": "job",
    "Results": "results.read",
    "Source": "sources.listing",
    "Summary": "job",
    "TargetSpec": "target_spec",
    "read": "results.read",
    "report": "results.reporting",
    "run": "running",
}
_DEPRECATED = {"Asked": "TargetSpec"}

__all__ = [
    "Columns",
    "Job",
    "Map",
    "Progress",
    "Results",
    "Source",
    "Summary",
    "TargetSpec",
    "read",
    "report",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that `import gradtoken.batch` loads no library."""
    if name in _DEPRECATED:
        warnings.warn(
            f"gradtoken.batch.{name} is deprecated; use gradtoken.batch.{_DEPRECATED[name]}.",
            DeprecationWarning,
            stacklevel=2,
        )
        name = _DEPRECATED[name]
    if name not in _MODULES:
        raise AttributeError(f"module 'gradtoken.batch' has no attribute {name!r}")
    return getattr(import_module(f"gradtoken.batch.{_MODULES[name]}"), name)
