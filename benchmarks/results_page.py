"""The tables of docs/results.md, from the files in benchmarks/results.

    python benchmarks/results_page.py

A folder there holds what `gradtoken bench` wrote (summary.csv, differences.csv) and the command.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "results.md"
REFERENCE = "gradtoken"
COLUMNS = (
    *("pointing", "token_ap", "share", "energy", "coupling", "mean_iou", "pixel_accuracy"),
    *("positive_probability", "negative_probability"),
)
LESS_IS_BETTER = ("coupling", "positive_probability")
TABLE = re.compile(r"<!-- table (\S+) -->\n(.*?)<!-- end -->\n", re.DOTALL)


def read(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The rows of a table, by method and metric."""
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["method"], row["metric"]): row for row in csv.DictReader(file)}


def table(name: str) -> str:
    """Means by method, the best in bold; marks where the reference is clearly better or worse."""
    summary = read(RESULTS / name / "summary.csv")
    compared = read(RESULTS / name / "differences.csv")
    methods = list(dict.fromkeys(method for method, _ in summary))
    columns = [c for c in COLUMNS if (REFERENCE, c) in summary]
    best = {c: _best(c, [float(summary[m, c]["mean"]) for m in methods]) for c in columns}
    counts = {c: summary[REFERENCE, c]["n"] for c in columns}
    heads = [f"{c} (n={counts[c]})" for c in columns]
    lines = [f"| method | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    for method in methods:
        cells = []
        for column in columns:
            mean = float(summary[method, column]["mean"])
            text = f"**{mean:.3f}**" if mean == best[column] else f"{mean:.3f}"
            cells.append(text + _mark(compared.get((method, column)), column))
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _best(column: str, means: list[float]) -> float:
    return min(means) if column in LESS_IS_BETTER else max(means)


def _mark(row: dict[str, str] | None, column: str) -> str:
    """▲ where the method is clearly better than the reference, ▼ where it is clearly worse."""
    if row is None or row["clear"] != "yes":
        return ""
    reference_is_less = float(row["mean"]) < 0
    return " ▼" if reference_is_less == (column in LESS_IS_BETTER) else " ▲"


def page(text: str) -> str:
    """A page with its tables made anew."""

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        command = (RESULTS / name / "command.txt").read_text(encoding="utf-8").strip()
        indented = "\n".join(f"    {line}" for line in command.splitlines())
        return f"<!-- table {name} -->\n{indented}\n\n{table(name)}<!-- end -->\n"

    return TABLE.sub(replace, text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
