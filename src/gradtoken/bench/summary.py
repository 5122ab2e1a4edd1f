"""Tables of a run: means with intervals, paired differences, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradtoken.bench.records import Records
from gradtoken.metrics.bootstrap import Interval, mean_interval, ratio_interval

_RATIOS = {
    "pixel_accuracy": [("correct@segmentation", "labelled@segmentation")],
    "mean_iou": [
        ("both@background", "either@background"),
        ("both@foreground", "either@foreground"),
    ],
}
"""Metrics of a data set: the mean over pairs of counts of sum / sum."""

_FAILED = "failed"
LOWER_IS_BETTER = ("coupling", "positive", "deletion", "top1_random", "log_odds", _FAILED)
"""Prefixes of metrics of which less is better; of all others more is better."""


@dataclass(frozen=True)
class Row:
    """One metric of one method (or of a reference minus the method), and its interval."""

    method: str
    metric: str
    interval: Interval


def rows(records: Records) -> list[Row]:
    """Mean, 95% bootstrap interval over images and number of instances of every metric.

    Where a method failed on some images, the share of failures of each method is one of them.
    """
    table = []
    failed = records.failures()
    for method in records.methods():
        of_method = records.where(method=method)
        for metric in shown(of_method.metrics()):
            of_metric = of_method.where(metric=metric)
            table.append(Row(method, metric, mean_interval(of_metric.value, of_metric.picture)))
        table += _over_pixels(method, of_method)
        if any(name in records.methods() for name in failed):
            table.append(Row(method, _FAILED, _failure_rate(of_method)))
    return table


def _failure_rate(records: Records) -> Interval:
    """The share of its images on which a method failed."""
    images = list(dict.fromkeys(records.picture.tolist()))
    missed = set(records.picture[records.reason != ""].tolist())
    values = np.array([image in missed for image in images], dtype=float)
    return mean_interval(values, np.array(images, dtype=object))


def _over_pixels(method: str, records: Records) -> list[Row]:
    """Metrics that are defined over all pixels of a data set, not as a mean over images."""
    table = []
    for name, pairs in _RATIOS.items():
        parts = [[records.where(metric=metric) for metric in pair] for pair in pairs]
        if len(parts[0][0].value):
            picture = parts[0][0].picture
            values = [(above.value, below.value) for above, below in parts]
            table.append(Row(method, name, ratio_interval(values, picture)))
    return table


def differences(records: Records, reference: str) -> list[Row]:
    """The reference minus each other method, on the instances that both have."""
    table = []
    for method in records.methods():
        if method == reference:
            continue
        of_method = records.where(method=method)
        for metric in shown(of_method.metrics()):
            theirs = of_method.where(metric=metric).by_instance()
            ours = records.where(method=reference, metric=metric).by_instance()
            both = [key for key in theirs if key in ours]
            values = np.array([ours[key] - theirs[key] for key in both], dtype=float)
            images = np.array([image for image, _ in both], dtype=object)
            table.append(Row(method, metric, mean_interval(values, images)))
    return table


def shown(metrics: Sequence[str]) -> list[str]:
    """The metrics for tables: all but the points of curves and the counts, which have an @."""
    return [metric for metric in metrics if "@" not in metric]


def to_csv(table: Sequence[Row]) -> str:
    """Columns method, metric, mean, low, high, n."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "metric", "mean", "low", "high", "n"])
    for row in table:
        mean, low, high, n = row.interval
        writer.writerow([row.method, row.metric, *(f"{v:.6g}" for v in (mean, low, high)), n])
    return out.getvalue()


def to_markdown(table: Sequence[Row], caption: str) -> str:
    """A row per method, a column per metric: mean [low, high], the best mean in bold."""
    return _laid_out(table, caption, "**{}**", lambda cells: f"| {' | '.join(cells)} |", rule=True)


def to_latex(table: Sequence[Row], caption: str) -> str:
    """The same as a LaTeX table with booktabs rules."""
    body = _laid_out(
        table,
        "method",
        r"\textbf{{{}}}",
        lambda cells: " & ".join(cell.replace("_", r"\_") for cell in cells) + r" \\",
        rule=False,
    ).splitlines()
    columns = "l" * (body[0].count("&") + 1)
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{caption.replace('_', chr(92) + '_')}}}",
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


def _laid_out(
    table: Sequence[Row], caption: str, bold: str, line: Callable[[list[str]], str], *, rule: bool
) -> str:
    metrics = list(dict.fromkeys(row.metric for row in table))
    methods = list(dict.fromkeys(row.method for row in table))
    cells = {(row.method, row.metric): row.interval for row in table}
    counts = {m: {i.n for (_, metric), i in cells.items() if metric == m} for m in metrics}
    heads = [f"{m} (n={n.pop()})" if len(n := counts[m]) == 1 else m for m in metrics]
    lines = [line([caption, *heads])]
    if rule:
        lines.append("|---" * (len(metrics) + 1) + "|")
    best = {metric: _best(metric, cells) for metric in metrics}
    for method in methods:
        texts = []
        for metric in metrics:
            interval = cells.get((method, metric))
            if interval is None or interval.n == 0:
                texts.append("–")
                continue
            mean = f"{interval.mean:.3f}"
            mean = bold.format(mean) if _is_best(interval.mean, best[metric]) else mean
            count = f" (n={interval.n})" if not heads[metrics.index(metric)].endswith(")") else ""
            texts.append(f"{mean} [{interval.low:.3f}, {interval.high:.3f}]{count}")
        lines.append(line([method, *texts]))
    return "\n".join(lines) + "\n"


def _is_best(mean: float, best: float) -> bool:
    """Whether two means are equal to the digits shown."""
    return round(mean, 3) == round(best, 3)


def _best(metric: str, cells: dict[tuple[str, str], Interval]) -> float:
    means = [i.mean for (_, m), i in cells.items() if m == metric and i.n]
    if not means:
        return float("nan")
    return min(means) if metric.startswith(LOWER_IS_BETTER) else max(means)


def write(folder: Path, records: Records, reference: str, title: str) -> list[Path]:
    """Write the tables `summary` and `differences` as .csv, .md and .tex.

    Args:
        folder: for the files.
        records: of a run.
        reference: the method that the others are compared with.
        title: caption of the summary.

    Returns:
        Paths of the files.
    """
    tables = {"summary": (rows(records), title)}
    if reference in records.methods() and len(records.methods()) > 1:
        tables["differences"] = (differences(records, reference), f"{reference} minus the method")
    paths = []
    for name, (table, caption) in tables.items():
        texts = {
            "csv": to_csv(table),
            "md": to_markdown(table, caption),
            "tex": to_latex(table, f"{caption}: mean and 95\\% bootstrap interval"),
        }
        for suffix, text in texts.items():
            path = folder / f"{name}.{suffix}"
            path.write_text(text, encoding="utf-8")
            paths.append(path)
    return paths
