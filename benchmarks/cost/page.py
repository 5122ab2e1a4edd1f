"""docs/performance.md, made of the results at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.cost.plots import growth_plot, methods_plot, targets_plot
from benchmarks.cost.reach import Results, reaches
from benchmarks.cost.tables import failures_list, methods_table, plain_table, reach_table

PLOTS = {"targets": targets_plot, "growth": growth_plot, "methods": methods_plot}
TEXT = Path(__file__).with_name("page.md")


def write(page: Path, folder: Path) -> None:
    """Put tables and plots in place of the marks of `page.md`.

    Args:
        page: where the page goes.
        folder: where the results are, and where the plots go.
    """
    results, machine = load(folder)
    for name, plot in PLOTS.items():
        plot(results[name], folder / f"{name}.png")
    parts = {name: plain_table(rows) for name, rows in results.items()}
    parts |= {
        "machine": ", ".join(f"{name} {value}" for name, value in machine.items()),
        "reach": reach_table(reaches(results)),
        "methods": methods_table(results["methods"]),
        "quickest": methods_table(results["quickest"]),
        "not run": failures_list(results["methods"]) or "All ran.",
    }
    text = TEXT.read_text("utf-8")
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part)
    page.write_text(text, "utf-8")


def load(folder: Path) -> tuple[Results, dict[str, Any]]:
    """Every result there is, and the machine of the last one."""
    results: Results = {}
    machine: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text("utf-8"))
        results[path.stem] = content["rows"]
        machine = content["machine"]
    return results, machine
