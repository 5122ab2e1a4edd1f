"""Many pictures in batches: the same maps, whatever the batch, and nothing that grows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import gradtoken
from gradtoken import batching, explaining
from gradtoken.batching import BatchSize, free_bytes, kept_bytes
from gradtoken.errors import ImageError, TargetError
from gradtoken.models import Model
from gradtoken.trace.record import record
from tests.conftest import images_for, tiny_vit


@pytest.fixture
def many() -> Tensor:
    return images_for((64, 64), 7)


def batch_sizes(model: Model, run: object) -> list[int]:
    seen: list[int] = []
    hook = model.module.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    try:
        run()
    finally:
        hook.remove()
    return seen


@pytest.mark.parametrize(("asked", "expected"), [(3, [3, 3, 1]), (7, [7]), (100, [7])])
def test_every_size_gives_the_same(
    model: Model, many: Tensor, asked: int, expected: list[int]
) -> None:
    targets = [[index, 9 - index] for index in range(7)]
    one_by_one = gradtoken.explain(model, many, targets, batch_size=1)
    found = []
    sizes = batch_sizes(
        model, lambda: found.append(gradtoken.explain(model, many, targets, batch_size=asked))
    )
    assert sizes == expected
    torch.testing.assert_close(found[0].tokens, one_by_one.tokens)
    torch.testing.assert_close(found[0].scores, one_by_one.scores)
    assert (
        found[0].labels == one_by_one.labels == [[f"class {a}", f"class {b}"] for a, b in targets]
    )
    assert len(found[0].sources) == len(found[0].boxes) == 7


def test_auto_takes_what_fits_its_budget(
    model: Model, many: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batch_sizes(model, lambda: gradtoken.explain(model, many, 1)) == [4, 3]
    each = kept_bytes(record(model, many[:1], queries=False))
    monkeypatch.setattr(batching, "_FIRST", 1)
    monkeypatch.setattr(batching, "_CPU_BYTES", 2 * each)
    assert batch_sizes(model, lambda: gradtoken.explain(model, many, 1)) == [1, 2, 2, 2]
    monkeypatch.setattr(batching, "_CPU_BYTES", each // 2)
    assert batch_sizes(model, lambda: gradtoken.explain(model, many, 1)) == [1] * 7


def test_kept_bytes_are_those_of_queries_keys_and_values(model: Model, many: Tensor) -> None:
    trace = record(model, many)
    tokens = 65 * 48 * 8
    assert kept_bytes(trace) == 7 * 4 * 3 * tokens


def test_what_does_not_fit_runs_in_halves(many: Tensor) -> None:
    class Small(type(tiny_vit())):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 2:
                raise torch.OutOfMemoryError("too many at once")
            return super().forward(x)

    module = tiny_vit()
    expected = gradtoken.explain(gradtoken.wrap(module), many, 1).tokens
    module.__class__ = Small
    small = gradtoken.wrap(module)
    found = []
    sizes = batch_sizes(small, lambda: found.append(gradtoken.explain(small, many, 1)))
    assert sizes[:4] == [4, 2, 2, 3]
    torch.testing.assert_close(found[0].tokens, expected)
    with pytest.raises(torch.OutOfMemoryError):
        gradtoken.explain(small, many, 1, batch_size=4)


@pytest.mark.parametrize("wrong", [0, -1, True, 2.0, "many", None])
def test_other_sizes_are_refused(model: Model, many: Tensor, wrong: object) -> None:
    with pytest.raises(ImageError, match='must be "auto" or a number from 1 up'):
        gradtoken.explain(model, many, 1, batch_size=wrong)


def test_picture_by_picture(model: Model, many: Tensor) -> None:
    whole = gradtoken.explain(model, many, [1, 2])
    each = list(gradtoken.explain_each(model, many, [1, 2], batch_size=3))
    assert len(each) == 7
    torch.testing.assert_close(torch.cat([one.tokens for one in each]), whole.tokens)


def test_picture_by_picture_shapes_may_differ() -> None:
    model = gradtoken.wrap(tiny_vit(dynamic_img_size=True))
    images = [*images_for((64, 64)), *images_for((48, 96)), *images_for((64, 64))]
    shapes = [tuple(one.tokens.shape) for one in gradtoken.explain_each(model, images, 1)]
    assert shapes == [(1, 1, 8, 8)] * 2 + [(1, 1, 6, 12)] * 2 + [(1, 1, 8, 8)] * 2
    with pytest.raises(ImageError, match="take them picture by picture with explain_each"):
        gradtoken.explain(model, images, 1)


def test_the_model_is_left_alone_between_pictures(model: Model, many: Tensor) -> None:
    model.module.train()
    for _ in gradtoken.explain_each(model, many, 1, batch_size=2):
        assert model.module.training
        assert not model.module.blocks[0]._forward_pre_hooks


def test_mistakes_are_told_at_once_and_not_at_the_first_picture(model: Model, many: Tensor) -> None:
    with pytest.raises(TargetError, match="2 lists of targets were given for 7 images"):
        gradtoken.explain_each(model, many, [[1], [2]])
    with pytest.raises(ImageError, match="list of pictures is empty"):
        gradtoken.explain_each(model, [])


def test_pictures_that_cannot_be_read_are_told_and_left_out(
    model: Model, picture: Image.Image, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    given = [picture, bad, picture, tmp_path / "missing.png"]
    told: list[tuple[int, str]] = []
    found = list(
        gradtoken.explain_each(
            model, given, 1, on_error=lambda index, error: told.append((index, str(error)))
        )
    )
    assert len(found) == 2
    assert [index for index, _ in told] == [1, 3]
    assert "not a picture" in told[0][1]
    with pytest.raises(ImageError, match=r"bad\.png is not a picture"):
        list(gradtoken.explain_each(model, given, 1))


def test_progress(model: Model, many: Tensor) -> None:
    told: list[tuple[int, int]] = []
    gradtoken.explain(model, many, 1, batch_size=3, progress=lambda *done: told.append(done))
    assert told == [(3, 7), (6, 7), (7, 7)]


def test_maps_that_cannot_fit_are_refused_after_the_first_batch(
    model: Model, many: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 7 * 10 * 64 * 4
    monkeypatch.setattr(explaining, "free_bytes", lambda device: needed)
    assert gradtoken.explain(model, many, "all", batch_size=2).tokens.shape == (7, 10, 8, 8)
    monkeypatch.setattr(explaining, "free_bytes", lambda device: needed - 1)
    seen = []

    def run() -> None:
        with pytest.raises(TargetError, match=r"maps of 10 targets for 7 images.*explain_each"):
            gradtoken.explain(model, many, "all", batch_size=2)

    seen = batch_sizes(model, run)
    assert seen == [2]


def test_free_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert free_bytes(torch.device("cpu")) > 1 << 20
    monkeypatch.setattr(batching, "MEMINFO", tmp_path / "none")
    assert free_bytes(torch.device("cpu")) > 1 << 20


def test_a_number_stays_the_number(model: Model, many: Tensor) -> None:
    size = BatchSize(5)
    size.judge(record(model, many))
    assert size.now == 5
