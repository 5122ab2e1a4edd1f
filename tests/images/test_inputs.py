"""Decoding and preprocessing, in this process or in workers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import gradtoken
from gradtoken.errors import ImageError
from gradtoken.images import inputs as module
from gradtoken.images.inputs import Inputs
from gradtoken.models import Model


def test_inputs_of_workers_equal_those_of_this_process(model: Model, files: list[Path]) -> None:
    value = [*files, Image.open(files[0]), model.preprocess(Image.open(files[1]))]
    here = list(Inputs(model.preprocess, value))
    for workers in (1, 2):
        there = list(Inputs(model.preprocess, value, workers=workers))
        for item, other in zip(here, there, strict=True):
            assert torch.equal(item.tensor, other.tensor)
            assert item.source.to_dict() == other.source.to_dict()
            assert item.source.image.tobytes() == other.source.image.tobytes()


def test_inputs_reads_bytes_as_single_image(model: Model, files: list[Path]) -> None:
    content = files[0].read_bytes()
    expected = gradtoken.explain(model, files[0], 1).tokens
    for value in (content, bytearray(content), [content]):
        assert torch.equal(gradtoken.explain(model, value, 1).tokens, expected)


def test_inputs_keeps_random_state_with_workers(model: Model, files: list[Path]) -> None:
    before = torch.random.get_rng_state()
    gradtoken.explain(model, files, 1, workers=2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_inputs_raises_same_error_with_workers(model: Model, files: list[Path]) -> None:
    files[2].write_text("no picture")
    said = []
    for workers in (0, 2):
        with pytest.raises(ImageError) as caught:
            gradtoken.explain(model, files, 1, workers=workers)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "2.png is not an image" in said[0]


def test_inputs_defers_images_of_long_lists(
    model: Model, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = gradtoken.explain(model, files, 1)
    assert all(source.in_memory for source in held.sources)
    monkeypatch.setattr(module, "MAX_IN_MEMORY", 3)
    monkeypatch.setattr(module, "default_workers", lambda count: 0)
    explanation = gradtoken.explain(model, files, 1)
    assert not any(source.in_memory for source in explanation.sources)
    torch.testing.assert_close(explanation.tokens, held.tokens)
    assert explanation.overlay(image=4).size == (44, 50)


def test_default_workers_by_count_and_start_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.multiprocessing, "get_start_method", lambda: "fork")
    assert module.default_workers(32) == 0
    assert 1 <= module.default_workers(33) <= 8
    monkeypatch.setattr(module.multiprocessing, "get_start_method", lambda: "spawn")
    assert module.default_workers(1000) == 0


@pytest.mark.parametrize("wrong", [-1, True, "two", 1.0])
def test_inputs_rejects_invalid_workers(model: Model, files: list[Path], wrong: object) -> None:
    with pytest.raises(ImageError, match=r"workers is .* must be None or a number from 0 up"):
        gradtoken.explain(model, files, 1, workers=wrong)


def test_inputs_of_tensors_uses_no_workers(model: Model, batch: torch.Tensor) -> None:
    assert Inputs(model.preprocess, batch, workers=4).workers == 0
