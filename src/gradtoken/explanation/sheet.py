"""One figure of many methods: a row per picture and target, a column per method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from gradtoken.errors import one_line
from gradtoken.explanation import style as display
from gradtoken.explanation.evidence import evidence_of
from gradtoken.explanation.explanation import Explanation
from gradtoken.explanation.figures import TextFigure

_WIDTH = 1.35
"""Inches of a panel."""


@dataclass(frozen=True)
class SheetRow:
    """One target of one picture.

    Args:
        picture: RGB.
        title: what is asked about.
        overlays: by method; a text where the method cannot serve the model.
        notes: by method, what is to be said below its overlay.
        outline: the object's pixels, to be drawn around, in the overlays' proportions.
    """

    picture: Image.Image
    title: str
    overlays: Mapping[str, Image.Image | str]
    notes: Mapping[str, str] = field(default_factory=dict)
    outline: np.ndarray[Any, Any] | None = None


def notes_on(maps: Mapping[str, Tensor], k: int) -> dict[str, str]:
    """What is to be said of a target's maps by several methods.

    Args:
        maps: tokens (K, h, w) by method.
        k: which target.
    """
    return {name: "no positive evidence" for name, one in maps.items() if evidence_of(one[k]).none}


def rows_of(
    found: Mapping[str, Explanation | str],
    style: display.Style,
    outlines: np.ndarray[Any, Any] | None = None,
) -> list[SheetRow]:
    """Rows of one picture's explanations (or reasons why there is none), by method."""
    given = next(e for e in found.values() if not isinstance(e, str))
    maps = {name: e.tokens[0] for name, e in found.items() if not isinstance(e, str)}
    return [
        SheetRow(
            picture=given.sources[0].picture,
            title=one_line(label.split(",")[0])[:60],
            overlays={
                name: e if isinstance(e, str) else e.overlay(k, style=style)
                for name, e in found.items()
            },
            notes=notes_on(maps, k),
            outline=None if outlines is None else outlines[k],
        )
        for k, label in enumerate(given.labels[0])
    ]


def sheet(rows: Sequence[SheetRow], caption: str) -> Figure:
    """The figure: the picture with its target first, then each method's overlay."""
    methods = list(rows[0].overlays)
    heights = [min(max(r.picture.height / r.picture.width, 0.3), 3) for r in rows]
    size = (_WIDTH * (len(methods) + 1), _WIDTH * sum(heights) + 0.7)
    figure = TextFigure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), len(methods) + 1, squeeze=False, height_ratios=heights)
    for line, row in zip(axes, rows, strict=True):
        picture = row.picture.copy()
        picture.thumbnail((display.MAX_SIDE // 2,) * 2)
        line[0].imshow(picture)
        line[0].set_ylabel(row.title, fontsize=9, parse_math=False)
        for axis, method in zip(line[1:], methods, strict=True):
            overlay = row.overlays[method]
            if isinstance(overlay, str):
                axis.text(0.5, 0.5, "refuses", ha="center", va="center", fontsize=8, color="0.5")
                continue
            axis.imshow(overlay)
            axis.set_xlabel(row.notes.get(method, ""), fontsize=6, labelpad=1)
            if row.outline is not None:
                axis.contour(row.outline, levels=[0.5], colors="white", linewidths=0.6)
    for axis, method in zip(axes[0], ["", *methods], strict=True):
        axis.set_title(method.replace("-", "-\n") if len(method) > 11 else method, fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    figure.suptitle(caption, fontsize=9, color="0.4", parse_math=False)
    return figure
