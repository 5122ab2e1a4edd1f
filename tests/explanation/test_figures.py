"""Figures: shared scales, the colour bar, existing axes, text as text."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import gradtoken
from gradtoken import Explanation, Style
from gradtoken.errors import TargetError
from gradtoken.explanation import style as display
from gradtoken.explanation.figures import legend
from gradtoken.models import Model
from tests.conftest import images_for

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def explanation(model: Model, batch: Tensor) -> Explanation:
    return gradtoken.explain(model, batch, [1, 2, gradtoken.contrast(3, 4)], preset="v0.1")


def pictures(figure: Figure) -> list[np.ndarray]:
    """What is drawn into each axes, row by row."""
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]


def bars(figure: Figure) -> list:
    return [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]


def test_figure_titles_note_missing_evidence(mixed: Explanation) -> None:
    titles = [axis.get_title() for axis in mixed.figure().axes if axis.images]
    assert titles[1] == f"class 1\np = {float(mixed.probabilities[0, 0]):.3f}"
    assert titles[2].splitlines()[2] == "no positive evidence, sum -11.6"
    assert titles[4].endswith("no positive evidence, sum 0")


def test_shared_scale_ignores_maps_without_evidence(mixed: Explanation) -> None:
    loud = mixed.tokens.clone()
    loud[0, 1] *= 100
    mixed = replace(mixed, tokens=loud)
    figure = mixed.figure(shared_scale=True, show_image=False)
    drawn = [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]
    top = float(mixed.laid_out(0)[1].max())
    expected = np.asarray(mixed.overlay(0, style=Style(scale=top)))
    np.testing.assert_array_equal(drawn[0], expected)
    np.testing.assert_array_equal(drawn[1], np.asarray(mixed.overlay(1)))
    blank = mixed.figure(targets=[2, 3], shared_scale=True, show_image=False)
    assert len([axis for axis in blank.axes if axis.images]) == 2


def test_figure_titles(explanation: Explanation) -> None:
    figure = explanation.figure()
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert len(titles) == 2 * 4
    assert titles[0] == "tensor"
    assert titles[1] == f"class 1\np = {float(explanation.probabilities[0, 0]):.3f}"
    assert titles[3] == f"class 3 vs class 4\ny = {float(explanation.scores[0, 2]):.2f}"
    np.testing.assert_array_equal(pictures(figure)[5], np.asarray(explanation.overlay(0, image=1)))


def test_figure_shared_scale(explanation: Explanation) -> None:
    values = [explanation.laid_out(k)[1] for k in range(3)]
    largest = max(float(value.max()) for value in values)
    drawn = pictures(explanation.figure(shared_scale=True))
    for k in range(3):
        expected = explanation.overlay(k, style=Style(scale=largest))
        np.testing.assert_array_equal(drawn[1 + k], np.asarray(expected))
    own = pictures(explanation.figure())
    strongest = int(np.argmax([value.max() for value in values]))
    np.testing.assert_array_equal(own[1 + strongest], drawn[1 + strongest])
    weakest = int(np.argmin([value.max() for value in values]))
    assert (own[1 + weakest] != drawn[1 + weakest]).any()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("scale", [0.0, 0.25])
def test_figure_with_given_scale(explanation: Explanation, scale: float, shared: bool) -> None:
    """0 too: nothing reaches full colour there."""
    style = Style(scale=scale)
    figure = explanation[0].figure(style=style, shared_scale=shared)
    for k, drawn in enumerate(pictures(figure)[1:]):
        np.testing.assert_array_equal(drawn, np.asarray(explanation.overlay(k, style=style)))
    (bar,) = bars(figure)
    assert bar.get_ylabel() == "relevance"
    if scale:
        assert bar.get_ylim() == (0, scale)


@pytest.mark.parametrize("signed", [False, True])
def test_figure_colour_bar(explanation: Explanation, signed: bool) -> None:
    style = Style(signed=signed)
    item = explanation[0]
    (bar,) = bars(item.figure(style=style))
    assert bar.get_ylim() == (-1 if signed else 0, 1)
    assert bar.get_ylabel() == "relevance / largest of each map"
    assert (bar.get_title(), bar.get_xlabel()) == ("for", "against" if signed else "")
    (bar,) = bars(item.figure(style=style, shared_scale=True))
    top = max(display.full_colour(item.laid_out(k)[1], style) for k in range(3))
    assert bar.get_ylim() == pytest.approx((-top if signed else 0, top))
    assert bar.get_ylabel() == "relevance"
    assert len(bars(explanation.figure(shared_scale=True))) == 2
    assert not bars(item.figure(colorbar=False))


@pytest.mark.parametrize("signed", [False, True])
def test_legend_equals_colours_of_overlays(signed: bool) -> None:
    """What is hidden is mid-grey dimmed as pictures are; the ends are the map's own, blended."""
    style = Style(signed=signed, threshold=0.4, opacity=0.6)
    low, high = legend(style)(0.0)[:3], legend(style)(1.0)[:3]
    dimmed = 0.75 * 128 / 255 + 0.05
    ends = mpl.colormaps["RdBu_r" if signed else "inferno"]([0.0, 1.0])[:, :3]
    np.testing.assert_allclose(high, 0.4 * dimmed + 0.6 * ends[1], atol=0.01)
    np.testing.assert_allclose(low, 0.4 * dimmed + 0.6 * ends[0] if signed else dimmed, atol=0.01)
    hidden = legend(style)([0.35, 0.5, 0.65] if signed else [0.1, 0.35])[:, :3]
    np.testing.assert_allclose(hidden, dimmed, atol=0.01)


def test_savefig_keeps_text_in_svg_and_pdf(explanation: Explanation, tmp_path: Path) -> None:
    figure = explanation[0].figure(width=5, shared_scale=True, style=Style(signed=True))
    figure.savefig(tmp_path / "f.svg")
    root = ElementTree.parse(tmp_path / "f.svg").getroot()
    words = " ".join("".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    for word in ("class 1", "p = 0.", "class 3 vs class 4", "for", "against", "relevance"):
        assert word in words
    assert root.get("width") == "360pt"
    figure.savefig(tmp_path / "f.pdf")
    content = (tmp_path / "f.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/Type3" not in content
    assert b"/FontFile2" in content
    assert re.search(rb"/MediaBox \[ 0 0 360 ", content)
    assert mpl.rcParams["svg.fonttype"] == "path"


def test_savefig_resolution_of_images_in_svg(explanation: Explanation, tmp_path: Path) -> None:
    """They keep a print's resolution there, also where matplotlib's own is that of a screen."""
    figure = explanation[0].figure(width=3, show_image=False, targets=[0])
    figure.savefig(tmp_path / "f.svg")
    image = next(ElementTree.parse(tmp_path / "f.svg").getroot().iter(f"{SVG}image"))
    inches = float(image.get("width").removesuffix("pt")) / 72
    data = image.get("{http://www.w3.org/1999/xlink}href")
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as picture:
        assert picture.width / inches > 250


def test_figure_width_and_columns(explanation: Explanation) -> None:
    item = explanation[0]
    assert item.figure(width=6.5).get_size_inches()[0] == 6.5
    assert item.figure(colorbar=False).get_size_inches()[0] == pytest.approx(4 * 2.4)
    wrapped = item.figure(columns=2)
    assert len({round(a.get_subplotspec().rowspan.start) for a in wrapped.axes if a.images}) == 2
    assert len(pictures(wrapped)) == 4
    many = gradtoken.explain(gradtoken.load("demo"), Image.new("RGB", (40, 40)), top_k=10)
    starts = [a.get_subplotspec().colspan.start for a in many.figure().axes if a.images]
    assert max(starts) == 7
    with pytest.raises(TargetError, match="at least one column"):
        item.figure(columns=0)


def test_plot_into_existing_axes(explanation: Explanation) -> None:
    figure = Figure(figsize=(6, 2))
    axes = figure.subplots(1, 2)
    drawn = explanation.plot(axes, image=1, targets=["class 2", 0], colorbar=False)
    assert drawn == list(axes)
    assert figure.axes == list(axes)
    np.testing.assert_array_equal(
        np.asarray(axes[0].images[0].get_array()),
        np.asarray(explanation.overlay("class 2", image=1)),
    )
    assert axes[1].get_title().startswith("class 1\n")
    single = Figure().subplots()
    assert explanation.plot(single, targets=[0]) == [single]
    assert len(bars(single.figure)) == 1
    grid = Figure().subplots(2, 2)
    assert explanation.plot(grid, show_image=True) == list(grid.flat)
    own = explanation.plot(shared_scale=True)
    assert len(own) == 3
    assert isinstance(own[0].figure, Figure)
    inside = Figure().subfigures(1, 2)[0].subplots(1, 3)
    assert len(explanation.plot(inside)) == 3


def test_plot_rejects_wrong_number_of_axes(explanation: Explanation) -> None:
    axes = Figure().subplots(1, 2)
    with pytest.raises(TargetError, match="2 axes were given for 3 panels"):
        explanation.plot(axes)
    assert not axes[0].images
    with pytest.raises(TargetError, match="'class 9' is not among"):
        explanation.figure(targets=["class 9"])
    with pytest.raises(TargetError, match="nothing to draw"):
        explanation.figure(targets=[])


def test_figure_of_odd_names_and_sizes(model: Model) -> None:
    """Dollar signs are no formulas, long names wrap, strips and blank maps are drawn."""
    long = [f"a very {'long ' * 9}name {index}" for index in range(9)]
    named = gradtoken.wrap(model.module, labels=["$x_1$ & <b>", *long])
    explanation = gradtoken.explain(named, images_for((64, 64), 1), [0, 1], preset="v0.1")
    figure = explanation.figure(width=4)
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert titles[1].startswith("$x_1$ & <b>\n")
    assert titles[2].count("\n") == 2
    figure.draw_without_rendering()
    tall = gradtoken.explain(model, Image.new("RGB", (20, 400)), 1)
    tall.figure().draw_without_rendering()
    blank = replace(explanation, tokens=explanation.tokens * 0)
    blank.figure(shared_scale=True, style=Style(signed=True)).draw_without_rendering()


def test_picture_is_deprecated_name_of_show_image(explanation: Explanation) -> None:
    with pytest.warns(DeprecationWarning, match="use show_image="):
        drawn = pictures(explanation.figure(picture=False))
    assert len(drawn) == 2 * 3
    with pytest.warns(DeprecationWarning, match="use show_image="):
        assert len(explanation.plot(picture=True)) == 4
