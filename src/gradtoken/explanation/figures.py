"""Figures of explanations, made with matplotlib but without its global state."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from gradtoken.errors import TargetError, one_line
from gradtoken.explanation import style as display
from gradtoken.explanation.evidence import evidence_of
from gradtoken.explanation.interface import ExplanationLike
from gradtoken.images.box import Box

PANEL = 2.4
"""Width of a panel in inches, unless a figure's width is given."""
MOST_COLUMNS = 8
"""Panels in a row, unless a number of columns is given."""
_TITLE, _CAPTION, _BAR = 0.42, 0.3, 0.75
"""Heights of a panel's title and a figure's caption and the width of its colour bar, in inches."""
_LINE = 0.15
"""Height in inches of a title's third line: that a map has no positive evidence."""
_LONGEST_BAR = 4.0
_LETTERS = 200
"""Letters of a title that are kept; of these, what does not fit into two lines is left out."""
_SIZE = 9
"""Font size of a title in points."""
_VECTOR_DPI = 300
_TEXT_AS_TEXT: dict[Any, Any] = {"svg.fonttype": "none", "pdf.fonttype": 42, "ps.fonttype": 42}
_VECTOR = {".pdf", ".svg", ".eps", ".ps"}


@dataclass(frozen=True)
class Look:
    """The options of a figure.

    Args:
        style: how maps are coloured.
        shared_scale: use one colour scale for all targets of an image.
        show_image: begin with the image itself.
        colorbar: draw a colour bar.
    """

    style: display.Style
    shared_scale: bool = False
    show_image: bool = True
    colorbar: bool = True


class TextFigure(Figure):
    """A figure whose PDF and SVG files hold text as text, and images at print resolution."""

    def savefig(self, fname: Any, **options: Any) -> None:
        kind = str(options.get("format") or Path(str(fname)).suffix).lower()
        if f".{kind.lstrip('.')}" in _VECTOR:
            options.setdefault("dpi", _VECTOR_DPI)
        with mpl.rc_context(_TEXT_AS_TEXT):
            super().savefig(fname, **options)

    def _repr_png_(self) -> bytes:
        return png_bytes(self)


def png_bytes(figure: Figure) -> bytes:
    """A figure as a PNG file of 100 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Panel:
    """An image to draw, with its title."""

    drawn: Image.Image
    title: str


def summary(
    explanation: ExplanationLike,
    targets: Sequence[int | str] | None,
    look: Look,
    *,
    columns: int | None = None,
    width: float | None = None,
) -> Figure:
    """Rows of panels for each image; see `Explanation.figure`."""
    if columns is not None and columns < 1:
        raise TargetError(f"a figure needs at least one column, not {columns}.")
    drawn = [_panels(explanation, i, targets, look) for i in range(len(explanation))]
    across = min(columns or MOST_COLUMNS, max(len(panels) for panels, _ in drawn))
    side = PANEL if width is None else max(width - _BAR * look.colorbar, 0.1) / across
    rows = [
        (image, panels[start : start + across])
        for image, (panels, _) in enumerate(drawn)
        for start in range(0, len(panels), across)
    ]
    heights = [_height(panels, side) + _title_height(panels) for _, panels in rows]
    size = (side * across + _BAR * look.colorbar, sum(heights) + _CAPTION)
    figure = TextFigure(figsize=size if width is None else (width, size[1]), layout="constrained")
    grid = figure.subplots(len(rows), across, squeeze=False, height_ratios=heights)
    of_image: list[list[Axes]] = [[] for _ in drawn]
    for line, (image, panels) in zip(grid, rows, strict=True):
        of_image[image] += list(line)
        for axis in line:
            axis.set_axis_off()
        for axis, panel in zip(line, panels, strict=False):
            _show(axis, panel, side)
    if look.colorbar and look.shared_scale:
        for axes, (_, scale) in zip(of_image, drawn, strict=True):
            _colour_bar(axes, look, scale, size[1] / len(drawn))
    elif look.colorbar:
        _colour_bar(list(grid.flat), look, drawn[0][1], size[1])
    method = explanation.about["method"]["name"]
    caption = f"{method}, {explanation.about['model']['spec']}"
    figure.suptitle(caption, fontsize=_SIZE, color="0.4", parse_math=False)
    return figure


def plot(
    explanation: ExplanationLike,
    axes: Any,
    image: int,
    targets: Sequence[int | str] | None,
    look: Look,
) -> list[Axes]:
    """One image's panels in axes; see `Explanation.plot`."""
    panels, scale = _panels(explanation, image, targets, look)
    if axes is None:
        high = _height(panels, PANEL) + _title_height(panels)
        size = (PANEL * len(panels) + _BAR * look.colorbar, high)
        axes = TextFigure(figsize=size, layout="constrained").subplots(1, len(panels))
    flat: list[Axes] = list(np.atleast_1d(np.asarray(axes, dtype=object)).flat)
    if len(flat) != len(panels):
        raise TargetError(
            f"{len(flat)} axes were given for {len(panels)} panels "
            f"({', '.join(panel.title.splitlines()[0] for panel in panels)}); give one for each."
        )
    figure: Any = flat[0].figure.figure
    for axis, panel in zip(flat, panels, strict=True):
        axis.set_axis_off()
        _show(axis, panel, axis.get_position().width * figure.get_figwidth())
    if look.colorbar:
        _colour_bar(flat, look, scale, figure.get_figheight())
    return flat


def legend(style: display.Style) -> ListedColormap:
    """The colours of values 0 to 1 (-1 to 1 where signed) as overlays show them on mid-grey."""
    values = np.linspace(-1 if style.signed else 0, 1, 256)[None]
    grey = Image.new("RGB", (256, 1), (128, 128, 128))
    drawn = display.overlay(grey, values, Box(0, 0, 256, 1), replace(style, scale=1))
    return ListedColormap(np.asarray(drawn)[0] / 255)


def _panels(
    explanation: ExplanationLike, image: int, targets: Sequence[int | str] | None, look: Look
) -> tuple[list[_Panel], float]:
    """An image's panels, and the value in full colour; 0 where that is each map's own."""
    requested = range(explanation.tokens.shape[1]) if targets is None else targets
    positions = [explanation.position(k, image) for k in requested]
    if not positions:
        raise TargetError("there is nothing to draw: name at least one target.")
    maps = [explanation.laid_out(k, image=image, style=look.style) for k in positions]
    scale, style = 0.0 if look.style.scale is None else look.style.scale, look.style
    tokens = [explanation.tokens[image, k] for k in positions]
    if look.shared_scale and style.scale is None:
        scale = display.shared_full_colour(tokens, [values for _, values, _ in maps], style)
        style = replace(style, scale=scale)
    panels = []
    if look.show_image:
        panels.append(_Panel(maps[0][0], one_line(explanation.sources[image].name)))
    for k, target, (shown, values, box) in zip(positions, tokens, maps, strict=True):
        drawn = display.overlay(shown, values, box, display.fitted_to(target, style))
        panels.append(_Panel(drawn, _title(explanation, image, k)))
    return panels, scale


def _title(explanation: ExplanationLike, image: int, k: int) -> str:
    label = one_line(explanation.labels[image][k].split(",")[0])[:_LETTERS]
    probability = float(explanation.probabilities[image, k])
    value = f"p = {probability:.3f}"
    if math.isnan(probability):
        value = f"y = {float(explanation.scores[image, k]):.2f}"
    words = evidence_of(explanation.tokens[image, k]).words()
    return "\n".join([label, value, words] if words else [label, value])


def _show(axis: Axes, panel: _Panel, inches: float) -> None:
    letters = max(round(inches * 72 / (0.55 * _SIZE)), 8)
    name, *rest = panel.title.split("\n")
    lines = textwrap.wrap(name[:_LETTERS], letters, max_lines=2, placeholder=" …") or [name]
    axis.imshow(panel.drawn)
    axis.set_title("\n".join([*lines, *rest]), fontsize=_SIZE, parse_math=False)


def _title_height(panels: Sequence[_Panel]) -> float:
    return _TITLE + _LINE * any(panel.title.count("\n") > 1 for panel in panels)


def _height(panels: Sequence[_Panel], side: float) -> float:
    sizes = [panel.drawn.size for panel in panels]
    return side * max(min(max(high / wide, 0.2), 4) for wide, high in sizes)


def _colour_bar(axes: list[Axes], look: Look, scale: float, inches: float) -> None:
    """Draw the colour bar to the right of some axes that are so many inches high."""
    style = look.style
    top = scale or 1.0
    norm = Normalize(-top if style.signed else 0, top)
    mappable = ScalarMappable(norm, legend(style))
    figure: Any = axes[0].figure
    shrink = min(1.0, _LONGEST_BAR / inches)
    bar = figure.colorbar(mappable, ax=axes, fraction=0.05, pad=0.02, aspect=18, shrink=shrink)
    own = not look.shared_scale and style.scale is None
    unit = "relevance / largest of each map" if own else "relevance"
    bar.set_label(unit, fontsize=_SIZE - 1)
    bar.ax.tick_params(labelsize=_SIZE - 2)
    if top < 0.01 or top >= 1000:
        bar.formatter.set_powerlimits((0, 0))
        bar.ax.yaxis.get_offset_text().set_fontsize(_SIZE - 2)
    bar.ax.set_title("for", fontsize=_SIZE - 1, pad=3)
    if style.signed:
        bar.ax.set_xlabel("against", fontsize=_SIZE - 1, labelpad=3)
    bar.outline.set_linewidth(0.5)
