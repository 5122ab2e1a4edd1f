"""Display options: scales, smoothing, and the layers of an overlay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import gradtoken
from gradtoken import Explanation, Style
from gradtoken.explanation import style as display
from gradtoken.images.box import Box
from gradtoken.models import Model


def strength(explanation: Explanation, k: int, style: Style | None = None) -> float:
    """The largest difference of an overlay from what lies under it, in 0 to 1."""
    picture, _, box = explanation.laid_out(k)
    under = np.asarray(display.backdrop(picture, box), dtype=float)
    drawn = np.asarray(explanation.overlay(k, style=style), dtype=float)
    return float(np.abs(drawn - under).max()) / 255


def relevance(size: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.random.default_rng(0).normal(size=size)


def test_overlay_without_evidence_is_not_scaled_up(mixed: Explanation) -> None:
    assert strength(mixed, 0) > 0.5
    picture, values, box = mixed.laid_out(1)
    scaled_up = display.overlay(picture, values, box, Style())
    faint = mixed.overlay(1)
    share = 1 / 13.6
    shown = display.normalised(values, Style(scale=1 / share))
    assert float(shown.max()) == pytest.approx(share)
    expected = display.overlay(picture, values, box, Style(scale=1 / share))
    np.testing.assert_array_equal(np.asarray(faint), np.asarray(expected))
    assert (np.asarray(faint) != np.asarray(scaled_up)).any()
    assert strength(mixed, 1) < 0.3
    assert strength(mixed, 2) == strength(mixed, 3) == 0


def test_fitted_to_keeps_given_scale_and_signed_style(mixed: Explanation) -> None:
    picture, values, box = mixed.laid_out(1)
    for style in (Style(scale=1000.0), Style(signed=True)):
        expected = display.overlay(picture, values, box, style)
        drawn = mixed.overlay(1, style=style)
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))
    low = mixed.overlay(1, style=Style(scale=0.01))
    np.testing.assert_array_equal(np.asarray(low), np.asarray(mixed.overlay(1)))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_heat_over_backdrop_equals_overlay(
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


def test_heat_is_transparent_below_threshold() -> None:
    for signed in (False, True):
        heat = display.heat(np.array([[1.0, 0.2, 0.0]]), Style(signed=signed, threshold=0.5))
        assert heat.mode == "P"
        assert np.asarray(heat.convert("RGBA"))[0, :, 3].tolist() == [255, 0, 0]


def test_smoothed_is_gaussian() -> None:
    tokens = torch.zeros(1, 9, 9)
    tokens[0, 4, 4] = 1
    assert display.smoothed(tokens, Style()) is tokens
    result = display.smoothed(tokens, Style(smoothing=1.5))[0]
    place = torch.arange(9.0)
    weights = torch.exp(-((place[:, None] - place) ** 2) / (2 * 1.5**2)).double()
    weights = weights / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(result.double(), torch.outer(weights[:, 4], weights[:, 4]))
    constant = torch.full((2, 5, 7), 0.3)
    torch.testing.assert_close(display.smoothed(constant, Style(smoothing=2)), constant)


def test_overlay_is_smoothed(model: Model, picture: Image.Image) -> None:
    explanation = gradtoken.explain(model, picture, [1])
    plain, smooth = (
        np.asarray(explanation.overlay(0, style=Style(smoothing=value)), dtype=float)
        for value in (0.0, 2.0)
    )
    assert np.array_equal(plain, np.asarray(explanation.overlay(0), dtype=float))
    assert np.abs(np.diff(smooth, axis=1)).mean() < np.abs(np.diff(plain, axis=1)).mean()
