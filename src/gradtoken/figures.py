"""Figures of explanations, made with matplotlib but without its global state."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from gradtoken import display
from gradtoken.explanation import Explanation


def summary(explanation: Explanation, style: display.Style) -> Figure:
    """A row per image: the picture, then each target's overlay with its name and probability."""
    count, columns = explanation.tokens.shape[0], explanation.tokens.shape[1] + 1
    figure = Figure(figsize=(2.4 * columns, 2.75 * count + 0.35), layout="constrained")
    axes = np.asarray(figure.subplots(count, columns, squeeze=False))
    for image, row in enumerate(axes):
        source = explanation.sources[image]
        picture = source.picture.copy()
        picture.thumbnail((display.MAX_SIDE, display.MAX_SIDE))
        row[0].imshow(picture)
        row[0].set_title(source.path.name if source.path else source.kind, fontsize=9)
        for k, axis in enumerate(row[1:]):
            axis.imshow(explanation.overlay(k, image=image, style=style))
            axis.set_title(_title(explanation, image, k), fontsize=9)
        for axis in row:
            axis.set_axis_off()
    method = explanation.about["method"]["name"]
    figure.suptitle(f"{method}, {explanation.about['model']['spec']}", fontsize=9, color="0.4")
    return figure


def _title(explanation: Explanation, image: int, k: int) -> str:
    label = explanation.labels[image][k].split(",")[0]
    probability = float(explanation.probabilities[image, k])
    if math.isnan(probability):
        return f"{label}\ny = {float(explanation.scores[image, k]):.2f}"
    return f"{label}\np = {probability:.3f}"
