"""The result of an explanation: relevance on pixels, overlays and figures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import gradtoken
from gradtoken.errors import ImageError
from gradtoken.models import Model


def test_relevance_is_zero_outside_of_input(model: Model, picture: Image.Image) -> None:
    explanation = gradtoken.explain(model, picture, 1)
    box = explanation.boxes[0]
    assert explanation.relevance.shape == (1, 1, picture.height, picture.width)
    unseen = round(box.left) - 1
    assert unseen > 5
    assert explanation.relevance[..., :unseen].abs().max() == 0
    assert explanation.relevance[..., picture.width // 2].abs().max() > 0


def test_relevance_rejects_different_sizes(model: Model, picture: Image.Image) -> None:
    explanation = gradtoken.explain(model, [picture, picture.resize((50, 80))], 1)
    with pytest.raises(ImageError, match=r"2 different sizes.*explanation\[i\]"):
        _ = explanation.relevance
    assert explanation[1].relevance.shape == (1, 1, 80, 50)


def test_relevance_and_overlay_of_extreme_sizes(model: Model) -> None:
    for size in ((1, 1), (8000, 20)):
        explanation = gradtoken.explain(model, Image.new("RGB", size, "red"), 1)
        assert explanation.relevance.shape == (1, 1, size[1], size[0])
        assert max(explanation.overlay().size) <= 1024


def test_overlay_and_figure(model: Model, picture: Image.Image) -> None:
    explanation = gradtoken.explain(model, [picture, picture], [1, 2])
    assert explanation.overlay().size == picture.size
    assert explanation.overlay("class 2") == explanation.overlay(1)
    assert explanation.overlay(0) != explanation.overlay(1)
    signed = explanation.overlay(0, style=gradtoken.Style(signed=True))
    assert signed != explanation.overlay(0)
    hidden = np.asarray(explanation.overlay(0, style=gradtoken.Style(threshold=0.999)))
    shown = np.asarray(explanation.overlay(0))
    assert (hidden != shown).any()
    assert len(explanation.figure(colorbar=False).axes) == 6
    assert explanation._repr_png_().startswith(b"\x89PNG")
    assert 'alt="Relevance maps for class 1, class 2"' in explanation._repr_html_()
    for wrong in (2, "class 9"):
        with pytest.raises(gradtoken.TargetError):
            explanation.overlay(wrong)


def test_overlay_of_large_image_is_smaller(model: Model) -> None:
    explanation = gradtoken.explain(model, Image.new("RGB", (3000, 1500), "gray"), 1)
    assert explanation.overlay().size == (1024, 512)
