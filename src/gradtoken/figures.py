"""Figures of explanations, made with matplotlib but without its global state."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from gradtoken import display
from gradtoken.errors import one_line
from gradtoken.explanation import Explanation

_LETTERS = 60
"""Letters of a label that are shown."""
_WIDTH, _TITLE = 2.4, 0.4
"""Inches of a panel's width, and of the height its title takes."""


def summary(explanation: Explanation, style: display.Style) -> Figure:
    """A row per image: the picture, then each target's overlay with its name and probability."""
    count, columns = explanation.tokens.shape[0], explanation.tokens.shape[1] + 1
    sizes = [source.picture.size for source in explanation.sources]
    heights = [_WIDTH * min(max(high / wide, 0.2), 4) + _TITLE for wide, high in sizes]
    figure = Figure(figsize=(_WIDTH * columns, sum(heights) + 0.3), layout="constrained")
    axes = figure.subplots(count, columns, squeeze=False, height_ratios=heights)
    for image, row in enumerate(axes):
        source = explanation.sources[image]
        picture = source.picture.copy()
        picture.thumbnail((display.MAX_SIDE, display.MAX_SIDE))
        row[0].imshow(picture)
        row[0].set_title(one_line(source.name)[:_LETTERS], fontsize=9, parse_math=False)
        for k, axis in enumerate(row[1:]):
            axis.imshow(explanation.overlay(k, image=image, style=style))
            axis.set_title(_title(explanation, image, k), fontsize=9, parse_math=False)
        for axis in row:
            axis.set_axis_off()
    method = explanation.about["method"]["name"]
    figure.suptitle(
        one_line(f"{method}, {explanation.about['model']['spec']}")[:200],
        fontsize=9,
        color="0.4",
        parse_math=False,
    )
    return figure


def _title(explanation: Explanation, image: int, k: int) -> str:
    label = one_line(explanation.labels[image][k].split(",")[0])[:_LETTERS]
    probability = float(explanation.probabilities[image, k])
    if math.isnan(probability):
        return f"{label}\ny = {float(explanation.scores[image, k]):.2f}"
    return f"{label}\np = {probability:.3f}"
