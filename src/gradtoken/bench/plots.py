"""Plots of a run: curves with bands, bars with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from gradtoken.bench.records import Records
from gradtoken.bench.summary import LOWER_IS_BETTER, Row
from gradtoken.metrics.bootstrap import mean_interval

_OURS = "gradtoken"
_DIRECTIONS = ("positive", "negative")
_TITLES = {
    "positive": "most relevant taken away first (lower is better)",
    "negative": "least relevant taken away first (higher is better)",
}


def perturbation_curves(records: Records) -> Figure | None:
    """Accuracy by the fraction of replaced pixels, a line per method; None if not measured."""
    methods = [m for m in records.methods() if _points(records, m, "positive")]
    if not methods:
        return None
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    colours = mpl.colormaps["tab20"]
    for axis, direction in zip(axes, _DIRECTIONS, strict=True):
        for index, method in enumerate(methods):
            fractions, means, lows, highs = zip(*_points(records, method, direction), strict=True)
            ours = method == _OURS
            colour = "black" if ours else colours(index % 20)
            axis.plot(fractions, means, color=colour, lw=2.2 if ours else 1, label=method)
            if ours or len(methods) <= 6:
                axis.fill_between(fractions, lows, highs, color=colour, alpha=0.15, lw=0)
        axis.set(title=_TITLES[direction], xlabel="fraction of pixels black", ylim=(-0.02, 1.02))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=7, frameon=False)
    return figure


def _points(
    records: Records, method: str, direction: str
) -> list[tuple[float, float, float, float]]:
    """(fraction, mean, low, high) of a method's curve."""
    of_method = records.where(method=method)
    points = []
    for metric in of_method.metrics():
        name, _, fraction = metric.partition("@")
        if name == direction and fraction:
            hits = of_method.where(metric=metric)
            points.append((float(fraction), *mean_interval(hits.value, hits.picture)[:3]))
    return sorted(points)


def bars(table: Sequence[Row]) -> Figure:
    """Every metric as bars with 95% intervals, a bar per method, best first."""
    metrics = list(dict.fromkeys(row.metric for row in table))
    columns = min(4, len(metrics))
    lines = math.ceil(len(metrics) / columns)
    methods = len({row.method for row in table})
    figure = Figure(figsize=(3.6 * columns, lines * (0.9 + 0.19 * methods)), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis, metric in zip(axes.flat, metrics, strict=False):
        lower = metric.startswith(LOWER_IS_BETTER)
        ranked = [row for row in table if row.metric == metric and row.interval.n]
        ranked.sort(key=lambda row: row.interval.mean, reverse=lower)
        for place, row in enumerate(ranked):
            mean, low, high, _ = row.interval
            colour = "#b4451f" if row.method.startswith(_OURS) else "#7d93a8"
            axis.barh(place, mean, color=colour, height=0.75)
            axis.plot([low, high], [place, place], color="black", lw=1)
        axis.set_yticks(range(len(ranked)), [row.method for row in ranked], fontsize=6)
        axis.tick_params(axis="x", labelsize=6)
        axis.set_title(f"{metric} ({'lower' if lower else 'higher'} is better)", fontsize=8)
        axis.margins(y=0.01)
    for axis in axes.flat[len(metrics) :]:
        axis.set_axis_off()
    return figure
