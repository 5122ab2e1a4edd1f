"""Results as plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = dict[str, Any]
OURS, OTHERS, BASE = "#0072b2", "#d55e00", "0.5"


def targets_plot(rows: Sequence[Row], path: Path) -> None:
    """Time against the number of targets."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axis = figure.subplots()
    some = [row for row in rows if row["targets"]]
    counts = [row["targets"] for row in some]
    axis.plot(counts, [row["time"] for row in some], "o-", color=OURS, label="gradtoken")
    axis.plot(counts, [3 * count for count in counts], "--", color=OTHERS, label="3 forwards each")
    axis.axhline(1, color=BASE, lw=0.8, label="the forward alone")
    axis.set(xscale="log", yscale="log", xlabel="classes explained", ylabel="time ÷ forward")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=130)


def growth_plot(rows: Sequence[Row], path: Path) -> None:
    """Ratio to the forward against tokens and against depth."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    usual = [row for row in rows if row["patch"] == 16]
    _lines(left, {row["tokens"]: row for row in usual if row["depth"] == 12})
    _lines(right, {row["depth"]: row for row in usual if row["side"] == 224})
    left.set(xlabel="tokens (patch 16)", ylabel="time ÷ forward")
    right.set(xlabel="blocks")
    left.legend(frameon=False)
    figure.savefig(path, dpi=130)


def _lines(axis: Axes, rows: Mapping[int, Row]) -> None:
    places = sorted(rows)
    for name, look, label in (("full", "s--", "full gradient"), ("gradtoken", "o-", "gradtoken")):
        colour = OURS if name == "gradtoken" else OTHERS
        axis.plot(places, [rows[at][name] for at in places], look, color=colour, label=label)
    axis.axhline(1, color=BASE, lw=0.8)
    axis.set_ylim(bottom=0)
    axis.set_xscale("log", base=2)
    axis.set_xticks(places, [str(at) for at in places])


def methods_plot(rows: Sequence[Row], path: Path) -> None:
    """Time of each method on ViT-B/16, batch 1."""
    some = [
        row for row in rows if row["model"] == "ViT-B/16" and row["batch"] == 1 and "time" in row
    ]
    some.sort(key=lambda row: -row["time"])
    figure = Figure(figsize=(7.2, 0.23 * len(some) + 0.8), layout="constrained")
    axis = figure.subplots()
    colours = [_colour(row) for row in some]
    axis.barh([row["method"] for row in some], [row["time"] for row in some], color=colours)
    axis.axvline(1, color=BASE, lw=0.8)
    axis.set(xlabel="time ÷ forward, ViT-B/16, batch 1 (blue: ours)", xscale="log")
    axis.tick_params(axis="y", labelsize=7)
    axis.margins(y=0.01)
    figure.savefig(path, dpi=130)


def _colour(row: Row) -> str:
    if row["method"] == "forward":
        return BASE
    return OURS if row["ours"] else OTHERS
