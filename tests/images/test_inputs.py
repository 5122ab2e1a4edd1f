"""Decoding and preprocessing, here or in workers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import gradtoken
from gradtoken.errors import ImageError
from gradtoken.images import inputs as module
from gradtoken.images.inputs import Inputs
from gradtoken.images.source import Source
from gradtoken.models import Model


@pytest.fixture
def files(tmp_path: Path, picture: Image.Image) -> list[Path]:
    found = []
    for index in range(6):
        path = tmp_path / f"{index}.png"
        picture.rotate(10 * index).resize((40 + index, 50)).save(path)
        found.append(path)
    return found


def test_workers_make_what_is_made_here(model: Model, files: list[Path]) -> None:
    given = [*files, Image.open(files[0]), model.preprocess(Image.open(files[1]))]
    here = list(Inputs(model.preprocess, given))
    for workers in (1, 2):
        there = list(Inputs(model.preprocess, given, workers=workers))
        for one, other in zip(here, there, strict=True):
            assert torch.equal(one.tensor, other.tensor)
            assert one.source.to_dict() == other.source.to_dict()
            assert one.source.picture.tobytes() == other.source.picture.tobytes()


def test_bytes_are_one_picture(model: Model, files: list[Path]) -> None:
    content = files[0].read_bytes()
    expected = gradtoken.explain(model, files[0], 1).tokens
    for given in (content, bytearray(content), [content]):
        assert torch.equal(gradtoken.explain(model, given, 1).tokens, expected)


def test_workers_leave_the_random_state_alone(model: Model, files: list[Path]) -> None:
    before = torch.random.get_rng_state()
    gradtoken.explain(model, files, 1, workers=2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_error_in_a_worker_is_the_same_sentence(model: Model, files: list[Path]) -> None:
    files[2].write_text("no picture")
    said = []
    for workers in (0, 2):
        with pytest.raises(ImageError) as caught:
            gradtoken.explain(model, files, 1, workers=workers)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "2.png is not a picture" in said[0]


def test_many_pictures_are_not_all_held(
    model: Model, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = gradtoken.explain(model, files, 1)
    assert all("picture" in vars(source) or source._size is None for source in held.sources)
    monkeypatch.setattr(module, "_MANY", 3)
    monkeypatch.setattr(module, "_helpful", lambda count: 0)
    found = gradtoken.explain(model, files, 1)
    assert not any("picture" in vars(source) for source in found.sources)
    torch.testing.assert_close(found.tokens, held.tokens)
    assert found.overlay(image=4).size == (44, 50)


def test_a_file_that_changed_is_not_shown_under_its_old_maps(
    model: Model, files: list[Path]
) -> None:
    found = gradtoken.explain(model, files, 1, workers=1)
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(ImageError, match=r"0\.png changed after it was explained"):
        found.overlay(image=0)
    found.overlay(image=1)


def test_how_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.multiprocessing, "get_start_method", lambda: "fork")
    assert module._helpful(32) == 0
    assert 1 <= module._helpful(33) <= 8
    monkeypatch.setattr(module.multiprocessing, "get_start_method", lambda: "spawn")
    assert module._helpful(1000) == 0


@pytest.mark.parametrize("wrong", [-1, True, "two", 1.0])
def test_other_numbers_of_workers_are_refused(
    model: Model, files: list[Path], wrong: object
) -> None:
    with pytest.raises(ImageError, match=r"workers is .* must be None or a number from 0 up"):
        gradtoken.explain(model, files, 1, workers=wrong)


def test_tensors_need_no_workers(model: Model, batch: torch.Tensor) -> None:
    assert Inputs(model.preprocess, batch, workers=4)._workers == 0


def test_a_tensor_is_shown_when_it_is_asked_for(model: Model, batch: torch.Tensor) -> None:
    source = Source.shown(model.preprocess, batch[0])
    assert source.size == (64, 64)
    assert "picture" not in vars(source)
    assert source.picture.size == (64, 64)
