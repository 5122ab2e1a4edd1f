"""The origin of an image, its fingerprint, and when it is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gradtoken
from gradtoken.errors import ImageError
from gradtoken.images.source import Source
from gradtoken.models import Model
from tests.images.multichannel import array, noise, wrapped


def test_from_array_shows_rgb_and_hashes_all_channels() -> None:
    model, item = wrapped(4), array(4)
    other = item.copy()
    other[..., 3] = 0
    explanation = gradtoken.explain(model, [item, other], 1)
    shown = [np.asarray(source.image) for source in explanation.sources]
    assert np.array_equal(shown[0], shown[1])
    assert np.array_equal(shown[0], (item[..., :3] * 255).round().astype(np.uint8))
    assert explanation.sources[0].sha256 != explanation.sources[1].sha256
    assert not torch.equal(explanation.tokens[0], explanation.tokens[1])
    tensors = gradtoken.explain(model, noise(4), 1).sources
    assert tensors[0].sha256 != tensors[1].sha256


def test_deferred_rejects_changed_file(model: Model, files: list[Path]) -> None:
    explanation = gradtoken.explain(model, files, 1, workers=1)
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(ImageError, match=r"0\.png changed after it was explained"):
        explanation.overlay(image=0)
    explanation.overlay(image=1)


def test_from_tensor_makes_image_on_first_use(model: Model, batch: torch.Tensor) -> None:
    source = Source.from_tensor(model.preprocess, batch[0])
    assert source.size == (64, 64)
    assert not source.in_memory
    assert source.image.size == (64, 64)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_boxes_lie_on_their_own_images(model: Model, batch_size: int) -> None:
    images = [Image.new("RGB", size) for size in ((64, 64), (128, 64), (64, 256))]
    explanation = gradtoken.explain(model, images, 1, batch_size=batch_size)
    expected = [model.preprocess.box(image.size) for image in images]
    assert len({tuple(box) for box in expected}) == 3
    assert [tuple(box) for box in explanation.boxes] == [tuple(box) for box in expected]
    assert [source.size for source in explanation.sources] == [image.size for image in images]
    assert tuple(explanation[1].boxes[0]) == tuple(expected[1])


def test_picture_is_deprecated_name_of_image(picture: Image.Image) -> None:
    source = Source(picture)
    with pytest.warns(DeprecationWarning, match=r"use Source\.image"):
        assert source.picture is source.image
