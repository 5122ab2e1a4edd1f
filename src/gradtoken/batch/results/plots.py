"""The report's figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from gradtoken.batch.results.summarising import BINS, Figures
from gradtoken.explanation.style import POSITIVE_MAP

_COLUMNS = 6
_WIDTH = 11.0
_SIDE = _WIDTH / _COLUMNS


def draw(figures: Figures, overlays: Sequence[Image.Image | None], classes: int) -> Figure:
    """Relevance outside the centre, then mean maps by class, then border-driven predictions.

    Args:
        figures: from `summarise`.
        overlays: a picture for each example, or None where only its map is left.
        classes: how many mean maps to draw.
    """
    weighed = {name: found for name, found in figures.classes.items() if found.weighed}
    frequent = sorted(weighed.items(), key=lambda item: (-item[1].maps, item[0]))[:classes]
    rows = [-(-len(items) // _COLUMNS) for items in (frequent, figures.examples)]
    heights = [3.4, *(max(count, 0.01) * (_SIDE + 0.45) + 0.35 for count in rows)]
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    parts: Any = figure.subfigures(3, 1, height_ratios=heights)
    _outside(parts[0], figures)
    if frequent:
        parts[1].suptitle("mean map of each class", fontsize=10)
    for axis, (name, found) in zip(_grid(parts[1], rows[0]), frequent, strict=False):
        axis.imshow(found.mean(), cmap=POSITIVE_MAP, vmin=0)
        axis.set_title(f"{_short(name)}\n{found.weighed:,} maps", fontsize=8)
    if figures.examples:
        parts[2].suptitle("most border-driven predictions", fontsize=10)
    shown = zip(_grid(parts[2], rows[1]), figures.examples, overlays, strict=False)
    for axis, example, overlay in shown:
        if overlay is None:
            axis.imshow(example.tokens, cmap=POSITIVE_MAP, vmin=0)
        else:
            axis.imshow(overlay)
        title = (
            f"{_short(example.id, keep_end=True)}\n{_short(example.target)}: {example.border:.0%}"
        )
        axis.set_title(title, fontsize=8)
    return figure


def _outside(part: Any, figures: Figures) -> None:
    left, right = part.subplots(1, 2)
    edges = np.linspace(0, 1, BINS + 1)
    left.bar(edges[:-1], figures.outside, width=1 / BINS, align="edge", color="tab:blue")
    left.axvline(figures.uniform[0], color="black", ls="--", lw=1, label="the same everywhere")
    left.set(xlabel="positive relevance outside the centre", ylabel="maps", xlim=(0, 1))
    left.legend(fontsize=8, frameon=False)
    counts = sorted(c.weighed for c in figures.classes.values())
    enough = max(1, counts[len(counts) // 2] // 4)
    shares = {n: c.border / c.weighed for n, c in figures.classes.items() if c.weighed >= enough}
    most = sorted(shares, key=lambda name: (-shares[name], name))[:10][::-1]
    right.barh([_short(name) for name in most], [shares[name] for name in most], color="tab:orange")
    right.axvline(figures.uniform[1], color="black", ls="--", lw=1)
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
    """A name that fits above a picture, and has no mark that matplotlib reads as mathematics."""
    if len(name) > length:
        name = "…" + name[1 - length :] if keep_end else name[: length - 1] + "…"
    return name.replace("$", r"\$")
