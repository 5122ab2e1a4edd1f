"""Explanations image by image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import gradtoken
from gradtoken.errors import ImageError, TargetError
from gradtoken.models import Model
from tests.conftest import images_for, tiny_vit


@pytest.fixture
def images() -> Tensor:
    return images_for((64, 64), 7)


def test_explain_each_equals_explain(model: Model, images: Tensor) -> None:
    whole = gradtoken.explain(model, images, [1, 2])
    each = list(gradtoken.explain_each(model, images, [1, 2], batch_size=3))
    assert len(each) == 7
    torch.testing.assert_close(torch.cat([item.tokens for item in each]), whole.tokens)


def test_explain_each_with_different_shapes() -> None:
    model = gradtoken.wrap(tiny_vit(dynamic_img_size=True))
    images = [*images_for((64, 64)), *images_for((48, 96)), *images_for((64, 64))]
    shapes = [tuple(item.tokens.shape) for item in gradtoken.explain_each(model, images, 1)]
    assert shapes == [(1, 1, 8, 8)] * 2 + [(1, 1, 6, 12)] * 2 + [(1, 1, 8, 8)] * 2
    with pytest.raises(ImageError, match="take them image by image with explain_each"):
        gradtoken.explain(model, images, 1)


def test_explain_each_restores_model_between_images(model: Model, images: Tensor) -> None:
    model.module.train()
    for _ in gradtoken.explain_each(model, images, 1, batch_size=2):
        assert model.module.training
        assert not model.module.blocks[0]._forward_pre_hooks


def test_explain_each_rejects_bad_arguments_before_iteration(model: Model, images: Tensor) -> None:
    with pytest.raises(TargetError, match="2 lists of targets were given for 7 images"):
        gradtoken.explain_each(model, images, [[1], [2]])
    with pytest.raises(ImageError, match="list of images is empty"):
        gradtoken.explain_each(model, [])


def test_explain_each_reports_and_skips_unreadable_images(
    model: Model, picture: Image.Image, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    value = [picture, bad, picture, tmp_path / "missing.png"]
    reported: list[tuple[int, str]] = []
    explanations = list(
        gradtoken.explain_each(
            model, value, 1, on_error=lambda index, error: reported.append((index, str(error)))
        )
    )
    assert len(explanations) == 2
    assert [index for index, _ in reported] == [1, 3]
    assert "not an image" in reported[0][1]
    with pytest.raises(ImageError, match=r"bad\.png is not an image"):
        list(gradtoken.explain_each(model, value, 1))
