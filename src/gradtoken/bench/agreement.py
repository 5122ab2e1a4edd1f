"""Do metrics rank methods alike? Rank correlation between the metrics of a run, over methods."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gradtoken import atomic
from gradtoken.bench.summary import FAILED_METRIC, LOWER_IS_BETTER, Row

_FEWEST = 3
"""Methods that two metrics have to have in common."""


@dataclass(frozen=True)
class Agreement:
    """How alike two metrics rank the methods that both have.

    Args:
        metrics: their names.
        spearman: rank correlation of the methods' means; 1 is the same ranking, -1 the reverse.
        kendall: Kendall's tau-b of the same.
        methods: how many methods both have.
    """

    metrics: tuple[str, str]
    spearman: float
    kendall: float
    methods: int


def agreements(table: Sequence[Row]) -> list[Agreement]:
    """The agreement of every two metrics of a run.

    Means are compared so that better is higher for every metric. Metrics that give all methods the
    same mean rank nothing and are left out, as are pairs with fewer than three methods in common.
    Needs the extra `bench` (scipy).

    Args:
        table: the means of every method (`summary.rows`).
    """
    from scipy.stats import kendalltau, spearmanr

    means = _means(table)
    found = []
    for first, second in combinations(means, 2):
        methods = [name for name in means[first] if name in means[second]]
        a, b = ([means[metric][name] for name in methods] for metric in (first, second))
        if len(methods) < _FEWEST or len(set(a)) == 1 or len(set(b)) == 1:
            continue
        values = (float(spearmanr(a, b).statistic), float(kendalltau(a, b).statistic))
        found.append(Agreement((first, second), *values, len(methods)))
    return found


def _means(table: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Means by metric and method, higher is better."""
    means: dict[str, dict[str, float]] = {}
    for row in table:
        if row.metric != FAILED_METRIC and row.interval.n and math.isfinite(row.interval.mean):
            sign = -1 if row.metric.startswith(LOWER_IS_BETTER) else 1
            means.setdefault(row.metric, {})[row.method] = sign * row.interval.mean
    return means


def to_csv(found: Sequence[Agreement]) -> str:
    """Columns metric, other, spearman, kendall, methods."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["metric", "other", "spearman", "kendall", "methods"])
    for each in found:
        values = (f"{value:.6g}" for value in (each.spearman, each.kendall))
        writer.writerow([*each.metrics, *values, each.methods])
    return out.getvalue()


def to_figure(found: Sequence[Agreement]) -> Figure:
    """A matrix of metrics: Spearman's correlation below the diagonal, Kendall's above it."""
    names = list(dict.fromkeys(name for each in found for name in each.metrics))
    place = {name: index for index, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    for each in found:
        first, second = sorted(place[name] for name in each.metrics)
        values[second, first], values[first, second] = each.spearman, each.kendall
    side = 1.8 + 0.42 * len(names)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.6 else "black"
            text = f"{value:.2f}".replace("0.", ".")
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    counts = sorted({each.methods for each in found})
    methods = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    axes.set_title(
        f"Do metrics rank {methods} methods alike?\nbelow: Spearman, above: Kendall", fontsize=8
    )
    figure.colorbar(shown, ax=axes, shrink=0.7)
    return figure


def write(folder: Path, table: Sequence[Row]) -> list[Path]:
    """Write `agreement.csv` and `agreement.png`; nothing where no two metrics can be compared.

    Args:
        folder: for the files.
        table: the means of every method.

    Returns:
        Paths of the files.
    """
    if not (found := agreements(table)):
        return []
    csv_path, figure_path = folder / "agreement.csv", folder / "agreement.png"
    csv_path.write_text(to_csv(found), encoding="utf-8")
    with atomic.writing(figure_path) as part:
        to_figure(found).savefig(part, dpi=150)
    return [csv_path, figure_path]
