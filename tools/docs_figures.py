"""Draw the figures of the documentation with the bundled model: docs/images/concepts-*.png.

python tools/docs_figures.py [--out docs/images]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradtoken
from gradtoken import Explanation, Style
from gradtoken.datasets import Scene, Scenes
from gradtoken.explanation.figures import TextFigure
from gradtoken.models import Model

_PANEL, _DPI = 1.8, 80
_SIGNED = Style(signed=True)


def scene() -> Scene:
    """A scene of two objects that the bundled model recognises; its number was chosen by eye."""
    return Scenes("test", objects=2, seed=7)[4]


def coupling(model: Model, shown: Scene) -> TextFigure:
    """Attention's one map for every class, and a map of each class."""
    names = list(shown.names)
    rows = {
        method: gradtoken.explain(model, shown.image, names, method=method)
        for method in ("raw-attention", "rollout", "gradtoken")
    }
    titled = {f"{name}\ncoupling {gradtoken.coupling(e):.2f}": e for name, e in rows.items()}
    return _rows(titled, Style(), show_image=True)


def relations(model: Model, shown: Scene) -> TextFigure:
    """What is attended to, what speaks for the class, and both together, of each class."""
    names = list(shown.names)
    plain: dict[str, Any] = {"target": "logit", "spread": None}
    rows = {
        "attention alone\n(a, last block)": {"method": "raw-attention"},
        "relation alone\n(β = 0)": {**plain, "beta": 0.0},
        "attention × relation\n(β = 1)": {**plain, "beta": 1.0},
        "the default\n(β = ½, rivals, near)": {},
    }
    made = {title: gradtoken.explain(model, shown.image, names, **o) for title, o in rows.items()}
    return _rows(made, _SIGNED, show_image=False)


def blocks(model: Model, shown: Scene) -> TextFigure:
    """What each block adds, on one colour scale."""
    depth = len(model.anatomy.blocks)
    figure = TextFigure(figsize=(_PANEL * depth, 2 * _PANEL + 0.7), layout="constrained")
    axes = figure.subplots(2, depth)
    found = [
        gradtoken.explain(model, shown.image, list(shown.names), layers=[block], spread=None)
        for block in range(depth)
    ]
    for k, row in enumerate(axes):
        scale = max(float(e.tokens[0, k].abs().max()) for e in found)
        for block, (axis, one) in enumerate(zip(row, found, strict=True)):
            style = Style(signed=True, scale=scale)
            one.plot(axis, targets=[k], style=style, colorbar=False)
            axis.set_title(f"block {block + 1}: {shown.names[k]}", fontsize=8)
    return figure


def contrast(model: Model, shown: Scene) -> TextFigure:
    """Two classes and their difference."""
    a, b = shown.names
    asked = [a, b, gradtoken.contrast(a, b)]
    found = gradtoken.explain(model, shown.image, asked, target="logit")
    return found.figure(style=_SIGNED, shared_scale=True, width=8.5)


FIGURES = {"coupling": coupling, "relations": relations, "blocks": blocks, "contrast": contrast}


def _rows(made: Mapping[str, Explanation], style: Style, *, show_image: bool) -> TextFigure:
    """A row per explanation with its title at the left, a column per target."""
    first = next(iter(made.values()))
    columns = len(first.labels[0]) + show_image
    size = (_PANEL * columns + 2.3, (_PANEL + 0.25) * len(made))
    figure = TextFigure(figsize=size, layout="constrained")
    axes = figure.subplots(len(made), columns, squeeze=False)
    for line, (title, one) in zip(axes, made.items(), strict=True):
        one.plot(line, style=style, show_image=show_image, colorbar=False)
        line[0].text(
            -0.08, 0.5, title, transform=line[0].transAxes, ha="right", va="center", fontsize=9
        )
        for axis, name in zip(line[int(show_image) :], one.labels[0], strict=True):
            axis.set_title(name, fontsize=9)
        if show_image:
            line[0].set_title("")
    return figure


def main() -> None:
    """Write every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    model, shown = gradtoken.load("demo"), scene()
    for name, draw in FIGURES.items():
        draw(model, shown).savefig(out / f"concepts-{name}.png", dpi=_DPI)


if __name__ == "__main__":
    main()
