"""A figure that compares methods: a row per image and target, a column per method."""

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
"""Width of a panel in inches."""


@dataclass(frozen=True)
class ComparisonRow:
    """A target of an image.

    Args:
        image: RGB.
        title: the target.
        overlays: by method; a text where the method does not support the model.
        notes: by method, the text below its overlay.
        outline: the object's mask, (H, W) in the overlays' proportions, drawn as an outline.
    """

    image: Image.Image
    title: str
    overlays: Mapping[str, Image.Image | str]
    notes: Mapping[str, str] = field(default_factory=dict)
    outline: np.ndarray[Any, Any] | None = None


def evidence_notes(maps: Mapping[str, Tensor], k: int) -> dict[str, str]:
    """A note for each method whose map of a target has no positive evidence.

    Args:
        maps: tokens (K, h, w) by method.
        k: the target's position.
    """
    return {
        name: "no positive evidence" for name, tokens in maps.items() if evidence_of(tokens[k]).none
    }


def comparison_rows(
    results: Mapping[str, Explanation | str],
    style: display.Style,
    outlines: np.ndarray[Any, Any] | None = None,
) -> list[ComparisonRow]:
    """A row for each target of an image.

    Args:
        results: the image's explanation, or the text of an error, by method.
        style: of the overlays.
        outlines: masks (K, H, W) of the targets' objects.
    """
    explanations = {name: e for name, e in results.items() if not isinstance(e, str)}
    first = next(iter(explanations.values()))
    maps = {name: e.tokens[0] for name, e in explanations.items()}
    return [
        ComparisonRow(
            image=first.sources[0].image,
            title=one_line(label.split(",")[0])[:60],
            overlays={
                name: e if isinstance(e, str) else e.overlay(k, style=style)
                for name, e in results.items()
            },
            notes=evidence_notes(maps, k),
            outline=None if outlines is None else outlines[k],
        )
        for k, label in enumerate(first.labels[0])
    ]


def comparison_figure(rows: Sequence[ComparisonRow], caption: str) -> Figure:
    """The figure: in each row the image with its target, then the overlay of each method."""
    methods = list(rows[0].overlays)
    heights = [min(max(row.image.height / row.image.width, 0.3), 3) for row in rows]
    size = (_WIDTH * (len(methods) + 1), _WIDTH * sum(heights) + 0.7)
    figure = TextFigure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), len(methods) + 1, squeeze=False, height_ratios=heights)
    for line, row in zip(axes, rows, strict=True):
        image = row.image.copy()
        image.thumbnail((display.MAX_SIDE // 2,) * 2)
        line[0].imshow(image)
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
