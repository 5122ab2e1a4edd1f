"""Figures: shared scales, what the colour bar says, axes given and returned, text as text."""

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
def found(model: Model, batch: Tensor) -> Explanation:
    return gradtoken.explain(model, batch, [1, 2, gradtoken.contrast(3, 4)])


def pictures(figure: Figure) -> list[np.ndarray]:
    """What is drawn into each axes, row by row."""
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]


def bars(figure: Figure) -> list:
    return [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]


def test_a_row_per_image_with_names_and_probabilities(found: Explanation) -> None:
    figure = found.figure()
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert len(titles) == 2 * 4
    assert titles[0] == "tensor"
    assert titles[1] == f"class 1\np = {float(found.probabilities[0, 0]):.3f}"
    assert titles[3] == f"class 3 vs class 4\ny = {float(found.scores[0, 2]):.2f}"
    np.testing.assert_array_equal(pictures(figure)[5], np.asarray(found.overlay(0, image=1)))


def test_a_shared_scale_is_one_for_all_targets_of_an_image(found: Explanation) -> None:
    values = [found.laid_out(k)[1] for k in range(3)]
    largest = max(float(value.max()) for value in values)
    drawn = pictures(found.figure(shared_scale=True))
    for k in range(3):
        expected = found.overlay(k, style=Style(scale=largest))
        np.testing.assert_array_equal(drawn[1 + k], np.asarray(expected))
    own = pictures(found.figure())
    strongest = int(np.argmax([value.max() for value in values]))
    np.testing.assert_array_equal(own[1 + strongest], drawn[1 + strongest])
    weakest = int(np.argmin([value.max() for value in values]))
    assert (own[1 + weakest] != drawn[1 + weakest]).any()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("scale", [0.0, 0.25])
def test_a_scale_that_is_given_is_used_and_written_beside(
    found: Explanation, scale: float, shared: bool
) -> None:
    """0 too: nothing reaches full colour there."""
    style = Style(scale=scale)
    figure = found[0].figure(style=style, shared_scale=shared)
    for k, drawn in enumerate(pictures(figure)[1:]):
        np.testing.assert_array_equal(drawn, np.asarray(found.overlay(k, style=style)))
    (bar,) = bars(figure)
    assert bar.get_ylabel() == "relevance"
    if scale:
        assert bar.get_ylim() == (0, scale)


@pytest.mark.parametrize("signed", [False, True])
def test_the_colour_bar_says_what_is_drawn(found: Explanation, signed: bool) -> None:
    style = Style(signed=signed)
    one = found[0]
    (bar,) = bars(one.figure(style=style))
    assert bar.get_ylim() == (-1 if signed else 0, 1)
    assert bar.get_ylabel() == "relevance / largest of each map"
    assert (bar.get_title(), bar.get_xlabel()) == ("for", "against" if signed else "")
    (bar,) = bars(one.figure(style=style, shared_scale=True))
    top = max(display.full_colour(one.laid_out(k)[1], style) for k in range(3))
    assert bar.get_ylim() == pytest.approx((-top if signed else 0, top))
    assert bar.get_ylabel() == "relevance"
    assert len(bars(found.figure(shared_scale=True))) == 2
    assert not bars(one.figure(colorbar=False))


@pytest.mark.parametrize("signed", [False, True])
def test_the_legend_has_the_colours_of_overlays(signed: bool) -> None:
    """What is hidden is mid-grey dimmed as pictures are; the ends are the map's own, blended."""
    style = Style(signed=signed, threshold=0.4, opacity=0.6)
    low, high = legend(style)(0.0)[:3], legend(style)(1.0)[:3]
    dimmed = 0.75 * 128 / 255 + 0.05
    ends = mpl.colormaps["RdBu_r" if signed else "inferno"]([0.0, 1.0])[:, :3]
    np.testing.assert_allclose(high, 0.4 * dimmed + 0.6 * ends[1], atol=0.01)
    np.testing.assert_allclose(low, 0.4 * dimmed + 0.6 * ends[0] if signed else dimmed, atol=0.01)
    hidden = legend(style)([0.35, 0.5, 0.65] if signed else [0.1, 0.35])[:, :3]
    np.testing.assert_allclose(hidden, dimmed, atol=0.01)


def test_text_is_text_in_svg_and_pdf(found: Explanation, tmp_path: Path) -> None:
    figure = found[0].figure(width=5, shared_scale=True, style=Style(signed=True))
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


def test_pictures_are_sharp_in_vector_files(found: Explanation, tmp_path: Path) -> None:
    """They keep a print's resolution there, also where matplotlib's own is that of a screen."""
    figure = found[0].figure(width=3, picture=False, targets=[0])
    figure.savefig(tmp_path / "f.svg")
    image = next(ElementTree.parse(tmp_path / "f.svg").getroot().iter(f"{SVG}image"))
    inches = float(image.get("width").removesuffix("pt")) / 72
    data = image.get("{http://www.w3.org/1999/xlink}href")
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as picture:
        assert picture.width / inches > 250


def test_sizes_are_inches_and_rows_wrap(found: Explanation) -> None:
    one = found[0]
    assert one.figure(width=6.5).get_size_inches()[0] == 6.5
    assert one.figure(colorbar=False).get_size_inches()[0] == pytest.approx(4 * 2.4)
    wrapped = one.figure(columns=2)
    assert len({round(a.get_subplotspec().rowspan.start) for a in wrapped.axes if a.images}) == 2
    assert len(pictures(wrapped)) == 4
    many = gradtoken.explain(gradtoken.load("demo"), Image.new("RGB", (40, 40)), top_k=10)
    starts = [a.get_subplotspec().colspan.start for a in many.figure().axes if a.images]
    assert max(starts) == 7
    with pytest.raises(TargetError, match="at least one column"):
        one.figure(columns=0)


def test_axes_are_taken_and_returned(found: Explanation) -> None:
    figure = Figure(figsize=(6, 2))
    axes = figure.subplots(1, 2)
    drawn = found.plot(axes, image=1, targets=["class 2", 0], colorbar=False)
    assert drawn == list(axes)
    assert figure.axes == list(axes)
    np.testing.assert_array_equal(
        np.asarray(axes[0].images[0].get_array()), np.asarray(found.overlay("class 2", image=1))
    )
    assert axes[1].get_title().startswith("class 1\n")
    single = Figure().subplots()
    assert found.plot(single, targets=[0]) == [single]
    assert len(bars(single.figure)) == 1
    grid = Figure().subplots(2, 2)
    assert found.plot(grid, picture=True) == list(grid.flat)
    own = found.plot(shared_scale=True)
    assert len(own) == 3
    assert isinstance(own[0].figure, Figure)
    inside = Figure().subfigures(1, 2)[0].subplots(1, 3)
    assert len(found.plot(inside)) == 3


def test_axes_that_do_not_fit_are_refused(found: Explanation) -> None:
    axes = Figure().subplots(1, 2)
    with pytest.raises(TargetError, match="2 axes were given for 3 panels"):
        found.plot(axes)
    assert not axes[0].images
    with pytest.raises(TargetError, match="'class 9' is not among"):
        found.figure(targets=["class 9"])
    with pytest.raises(TargetError, match="nothing to draw"):
        found.figure(targets=[])


def test_odd_names_and_pictures(model: Model) -> None:
    """Dollar signs are no formulas, long names wrap, strips and blank maps are drawn."""
    long = [f"a very {'long ' * 9}name {index}" for index in range(9)]
    named = gradtoken.wrap(model.module, labels=["$x_1$ & <b>", *long])
    found = gradtoken.explain(named, images_for((64, 64), 1), [0, 1])
    figure = found.figure(width=4)
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert titles[1].startswith("$x_1$ & <b>\n")
    assert titles[2].count("\n") == 2
    figure.draw_without_rendering()
    tall = gradtoken.explain(model, Image.new("RGB", (20, 400)), 1)
    tall.figure().draw_without_rendering()
    blank = replace(found, tokens=found.tokens * 0)
    blank.figure(shared_scale=True, style=Style(signed=True)).draw_without_rendering()
