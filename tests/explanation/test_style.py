"""Display choices: smoothing, and the layers that make an overlay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import gradtoken
from gradtoken.explanation import style as display
from gradtoken.explanation.style import Style
from gradtoken.images.crop_box import Box
from gradtoken.models import Model


def relevance(size: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.random.default_rng(0).normal(size=size)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_heat_over_the_backdrop_is_the_overlay(
    picture: Image.Image, signed: bool, threshold: float
) -> None:
    box, style = Box(15, 0, 75, 60), Style(signed=signed, threshold=threshold, opacity=0.6)
    inside = relevance((60, 60))
    whole = np.zeros((60, 90))
    whole[:, 15:75] = inside
    expected = np.asarray(display.overlay(picture, whole, box, style), dtype=float)

    heat = display.heat(inside, style).convert("RGBA")
    alpha = heat.getchannel("A").point(lambda value: round(value * style.opacity))
    canvas = display.backdrop(picture, box)
    canvas.paste(heat.convert("RGB"), (15, 0), alpha)
    assert np.abs(np.asarray(canvas, dtype=float) - expected).max() <= 8
    assert np.abs(np.asarray(canvas, dtype=float) - expected).mean() < 0.7


def test_nothing_is_drawn_where_relevance_is_hidden() -> None:
    for signed in (False, True):
        heat = display.heat(np.array([[1.0, 0.2, 0.0]]), Style(signed=signed, threshold=0.5))
        assert heat.mode == "P"
        assert np.asarray(heat.convert("RGBA"))[0, :, 3].tolist() == [255, 0, 0]


def test_smoothing_is_a_gaussian_over_tokens() -> None:
    tokens = torch.zeros(1, 9, 9)
    tokens[0, 4, 4] = 1
    assert display.smoothed(tokens, Style()) is tokens
    found = display.smoothed(tokens, Style(smoothing=1.5))[0]
    place = torch.arange(9.0)
    weights = torch.exp(-((place[:, None] - place) ** 2) / (2 * 1.5**2)).double()
    weights = weights / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(found.double(), torch.outer(weights[:, 4], weights[:, 4]))
    constant = torch.full((2, 5, 7), 0.3)
    torch.testing.assert_close(display.smoothed(constant, Style(smoothing=2)), constant)


def test_overlays_are_smoothed(model: Model, picture: Image.Image) -> None:
    found = gradtoken.explain(model, picture, [1])
    plain, smooth = (
        np.asarray(found.overlay(0, style=Style(smoothing=value)), dtype=float)
        for value in (0.0, 2.0)
    )
    assert np.array_equal(plain, np.asarray(found.overlay(0), dtype=float))
    assert np.abs(np.diff(smooth, axis=1)).mean() < np.abs(np.diff(plain, axis=1)).mean()
