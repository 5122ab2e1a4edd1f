"""The numbers of a run as CSV, Markdown and LaTeX tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from gradtoken.bench.differences import LEVEL, Difference, differences
from gradtoken.bench.records import Records
from gradtoken.bench.summary import LOWER_IS_BETTER, Row, rows
from gradtoken.metrics.bootstrap import Interval

MARKS = {"better": "▲", "worse": "▼"}
_LATEX_MARKS = {"▲": "$^{+}$", "▼": "$^{-}$"}
Marks: TypeAlias = Mapping[tuple[str, str], str]
"""By method and metric."""


def marks_of(compared: Sequence[Difference]) -> dict[tuple[str, str], str]:
    """A mark for each method and metric that is clearly better or worse than the reference."""
    return {(d.method, d.metric): MARKS[d.method_is] for d in compared if d.clear}


def legend(compared: Sequence[Difference], reference: str) -> str:
    """What the marks say, in a sentence."""
    better, worse = MARKS["better"], MARKS["worse"]
    return (
        f"{better} clearly better than {reference}, {worse} clearly worse: paired randomisation "
        f"tests over images, corrected by Holm for all {len(compared)} comparisons, at "
        f"{LEVEL:.0%}; what has no mark is not clearly different."
    )


def to_csv(table: Sequence[Row]) -> str:
    """Columns method, metric, mean, low, high, n; of differences p, p_holm and clear too."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    compared = any(isinstance(row, Difference) for row in table)
    tests = ["p", "p_holm", "clear"] if compared else []
    writer.writerow(["method", "metric", "mean", "low", "high", "n", *tests])
    for row in table:
        mean, low, high, n = row.interval
        cells = [row.method, row.metric, *(f"{v:.6g}" for v in (mean, low, high)), n]
        if isinstance(row, Difference):
            clear = "yes" if row.clear else "no"
            cells += [f"{row.p:.6g}", f"{row.p_corrected:.6g}", clear]
        writer.writerow(cells)
    return out.getvalue()


def to_markdown(table: Sequence[Row], caption: str, marks: Marks | None = None) -> str:
    """A row per method, a column per metric: mean [low, high].

    In bold is the best mean; of differences those that are clear.

    Args:
        table: the rows.
        caption: in the first cell.
        marks: put behind the means.
    """
    return _laid_out(
        table, caption, "**{}**", lambda cells: f"| {' | '.join(cells)} |", marks or {}, rule=True
    )


def to_latex(table: Sequence[Row], caption: str, marks: Marks | None = None) -> str:
    """The same as a LaTeX table with booktabs rules."""
    body = _laid_out(
        table,
        "method",
        r"\textbf{{{}}}",
        lambda cells: " & ".join(cell.replace("_", r"\_") for cell in cells) + r" \\",
        {key: _LATEX_MARKS[mark] for key, mark in (marks or {}).items()},
        rule=False,
    ).splitlines()
    columns = "l" * (body[0].count("&") + 1)
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_latex_text(caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_text(text: str) -> str:
    for plain, written in {"_": r"\_", "%": r"\%", **_LATEX_MARKS}.items():
        text = text.replace(plain, written)
    return text


def _laid_out(
    table: Sequence[Row],
    caption: str,
    bold: str,
    line: Callable[[list[str]], str],
    marks: Marks,
    *,
    rule: bool,
) -> str:
    metrics = list(dict.fromkeys(row.metric for row in table))
    cells = {(row.method, row.metric): row for row in table if row.interval.n}
    counts = {m: {r.interval.n for (_, metric), r in cells.items() if metric == m} for m in metrics}
    shared = {m: next(iter(counts[m])) if len(counts[m]) == 1 else None for m in metrics}
    heads = [m if shared[m] is None else f"{m} (n={shared[m]})" for m in metrics]
    lines = [line([caption, *heads])]
    if rule:
        lines.append("|---" * (len(metrics) + 1) + "|")
    best = {metric: _best(metric, cells) for metric in metrics}
    for method in dict.fromkeys(row.method for row in table):
        texts = []
        for metric in metrics:
            row = cells.get((method, metric))
            if row is None:
                texts.append("–")
                continue
            stands_out = row.clear if isinstance(row, Difference) else _is_best(row, best[metric])
            mean = f"{row.interval.mean:.3f}"
            mean = (bold.format(mean) if stands_out else mean) + marks.get((method, metric), "")
            count = f" (n={row.interval.n})" if shared[metric] is None else ""
            texts.append(f"{mean} {_range(row.interval)}{count}")
        lines.append(line([method, *texts]))
    return "\n".join(lines) + "\n"


def _range(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def _is_best(row: Row, best: float) -> bool:
    """Whether two means are equal to the digits shown."""
    return round(row.interval.mean, 3) == round(best, 3)


def _best(metric: str, cells: Mapping[tuple[str, str], Row]) -> float:
    means = [row.interval.mean for (_, m), row in cells.items() if m == metric]
    if not means:
        return float("nan")
    return min(means) if metric.startswith(LOWER_IS_BETTER) else max(means)


def write(
    folder: Path,
    records: Records,
    reference: str,
    title: str,
    compared: Sequence[Difference] | None = None,
) -> list[Path]:
    """Write the tables `summary` and `differences` as .csv, .md and .tex.

    Args:
        folder: for the files.
        records: of a run.
        reference: the method that the others are compared with.
        title: caption of the summary.
        compared: the `differences`, where they are known; None computes them.

    Returns:
        Paths of the files.
    """
    if compared is None:
        compared = differences(records, reference)
    marks, note = marks_of(compared), legend(compared, reference) if compared else ""
    tables: dict[str, tuple[Sequence[Row], str, str]] = {
        "summary": (rows(records), title, f"Bold is the best mean. {note}".strip())
    }
    if compared:
        clear = (
            f"In bold: clear at {LEVEL:.0%} by paired randomisation tests over images, corrected "
        )
        clear += f"by Holm for all {len(compared)} comparisons. Intervals are not corrected."
        tables["differences"] = (compared, f"{reference} minus the method", clear)
    paths = []
    for name, (table, caption, words) in tables.items():
        shown = marks if name == "summary" else {}
        spoken = f"{caption}: mean and 95% bootstrap interval. {words}"
        texts = {
            "csv": to_csv(table),
            "md": f"{to_markdown(table, caption, shown)}\n{words}\n",
            "tex": to_latex(table, spoken, shown),
        }
        for suffix, text in texts.items():
            path = folder / f"{name}.{suffix}"
            path.write_text(text, encoding="utf-8")
            paths.append(path)
    return paths
