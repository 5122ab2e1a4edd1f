"""The figure of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from gradtoken.batch.results.summarising import BINS, Statistics
from gradtoken.explanation.style import POSITIVE_MAP

_COLUMNS = 6
_WIDTH = 11.0
_SIDE = _WIDTH / _COLUMNS


def draw(statistics: Statistics, overlays: Sequence[Image.Image | None], classes: int) -> Figure:
    """Relevance outside the centre, mean maps of classes, and border-driven predictions.

    Args:
        statistics: from `summarise`.
        overlays: one for each example; None where only its map can be drawn.
        classes: number of mean maps.
    """
    drawable = {name: c for name, c in statistics.classes.items() if c.with_evidence}
    frequent = sorted(drawable.items(), key=lambda item: (-item[1].maps, item[0]))[:classes]
    rows = [-(-len(items) // _COLUMNS) for items in (frequent, statistics.examples)]
    heights = [3.4, *(max(count, 0.01) * (_SIDE + 0.45) + 0.35 for count in rows)]
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    parts: Any = figure.subfigures(3, 1, height_ratios=heights)
    _draw_shares(parts[0], statistics)
    if frequent:
        parts[1].suptitle("mean map of each class", fontsize=10)
    for axis, (name, of_class) in zip(_grid(parts[1], rows[0]), frequent, strict=False):
        axis.imshow(of_class.mean(), cmap=POSITIVE_MAP, vmin=0)
        axis.set_title(f"{_short(name)}\n{of_class.with_evidence:,} maps", fontsize=8)
    if statistics.examples:
        parts[2].suptitle("most border-driven predictions", fontsize=10)
    panels = zip(_grid(parts[2], rows[1]), statistics.examples, overlays, strict=False)
    for axis, example, overlay in panels:
        if overlay is None:
            axis.imshow(example.tokens, cmap=POSITIVE_MAP, vmin=0)
        else:
            axis.imshow(overlay)
        title = (
            f"{_short(example.id, keep_end=True)}\n{_short(example.target)}: {example.border:.0%}"
        )
        axis.set_title(title, fontsize=8)
    return figure


def _draw_shares(part: Any, statistics: Statistics) -> None:
    """The histogram of relevance outside the centre, and classes with relevance in the border."""
    left, right = part.subplots(1, 2)
    edges = np.linspace(0, 1, BINS + 1)
    left.bar(edges[:-1], statistics.outside, width=1 / BINS, align="edge", color="tab:blue")
    left.axvline(statistics.uniform[0], color="black", ls="--", lw=1, label="the same everywhere")
    left.set(xlabel="positive relevance outside the centre", ylabel="maps", xlim=(0, 1))
    left.legend(fontsize=8, frameon=False)
    classes = statistics.classes
    counts = sorted(c.with_evidence for c in classes.values())
    least = max(1, counts[len(counts) // 2] // 4)
    frequent = {name: c for name, c in classes.items() if c.with_evidence >= least}
    shares = {name: c.border / c.with_evidence for name, c in frequent.items()}
    most = sorted(shares, key=lambda name: (-shares[name], name))[:10][::-1]
    right.barh([_short(name) for name in most], [shares[name] for name in most], color="tab:orange")
    right.axvline(statistics.uniform[1], color="black", ls="--", lw=1)
    right.set(xlabel="positive relevance in the border, mean of the class", xlim=(0, 1))
    right.tick_params(axis="y", labelsize=8)


def _grid(part: Any, rows: int) -> list[Any]:
    if not rows:
        return []
    axes = list(part.subplots(rows, _COLUMNS, squeeze=False).ravel())
    for axis in axes:
        axis.set_axis_off()
    return axes


def _short(name: str, length: int = 22, keep_end: bool = False) -> str:
    """A name that fits above a panel, without the sign that begins mathematics in matplotlib."""
    if len(name) > length:
        name = "…" + name[1 - length :] if keep_end else name[: length - 1] + "…"
    return name.replace("$", r"\$")
