"""The tables of docs/results.md, from the files in benchmarks/results.

    python benchmarks/results_page.py

A folder there holds what `gradtoken bench` wrote (summary.csv, differences.csv) and the command.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from gradtoken.bench.differences import Difference
from gradtoken.bench.summary import LOWER_IS_BETTER, Row
from gradtoken.bench.tables import marks_of
from gradtoken.metrics.bootstrap import Interval

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "results.md"
REFERENCE = "gradtoken"
COLUMNS = (
    *("pointing", "token_ap", "share", "energy", "coupling", "mean_iou", "pixel_accuracy"),
    *("positive_probability", "negative_probability"),
)
TABLE = re.compile(r"<!-- table (\S+) -->\n(.*?)<!-- end -->\n", re.DOTALL)


def read(path: Path) -> Iterator[tuple[Row, dict[str, str]]]:
    """The rows of a table of `gradtoken bench`, each with its other cells."""
    with path.open(encoding="utf-8", newline="") as file:
        for cells in csv.DictReader(file):
            bounds = (float(cells[name]) for name in ("mean", "low", "high"))
            interval = Interval(*bounds, int(cells["n"]))
            yield Row(cells["method"], cells["metric"], interval), cells


def table(name: str) -> str:
    """Means by method, the best in bold; marks where the reference is clearly better or worse."""
    summary = {(row.method, row.metric): row for row, _ in read(RESULTS / name / "summary.csv")}
    marks = marks_of(
        [
            Difference(
                row.method,
                row.metric,
                row.interval,
                float(cells["p"]),
                float(cells["p_holm"]),
            )
            for row, cells in read(RESULTS / name / "differences.csv")
        ]
    )
    methods = list(dict.fromkeys(method for method, _ in summary))
    columns = [c for c in COLUMNS if (REFERENCE, c) in summary]
    means = {c: [summary[m, c].interval.mean for m in methods] for c in columns}
    best = {c: (min if c.startswith(LOWER_IS_BETTER) else max)(means[c]) for c in columns}
    heads = [f"{c} (n={summary[REFERENCE, c].interval.n})" for c in columns]
    lines = [f"| method | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    for method in methods:
        cells = []
        for column in columns:
            mean = summary[method, column].interval.mean
            text = f"**{mean:.3f}**" if mean == best[column] else f"{mean:.3f}"
            cells.append(f"{text} {marks.get((method, column), '')}".rstrip())
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


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
