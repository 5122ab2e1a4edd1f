"""Batches: the same maps for every size, of a size that fits into memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken import batching
from gradtoken.batching import BatchSize, free_bytes, kept_bytes
from gradtoken.errors import ImageError
from gradtoken.models import Model
from gradtoken.trace.record import record
from tests.conftest import images_for, tiny_vit
from tests.forwards import batch_sizes


@pytest.fixture
def images() -> Tensor:
    return images_for((64, 64), 7)


@pytest.mark.parametrize(("requested", "expected"), [(3, [3, 3, 1]), (7, [7]), (100, [7])])
def test_batch_size_does_not_change_maps(
    model: Model, images: Tensor, requested: int, expected: list[int]
) -> None:
    targets = [[index, 9 - index] for index in range(7)]
    one_by_one = gradtoken.explain(model, images, targets, batch_size=1)
    results = []
    sizes = batch_sizes(
        model,
        lambda: results.append(gradtoken.explain(model, images, targets, batch_size=requested)),
    )
    assert sizes == expected
    torch.testing.assert_close(results[0].tokens, one_by_one.tokens)
    torch.testing.assert_close(results[0].scores, one_by_one.scores)
    assert (
        results[0].labels == one_by_one.labels == [[f"class {a}", f"class {b}"] for a, b in targets]
    )
    assert len(results[0].sources) == len(results[0].boxes) == 7


def test_batch_size_auto_fits_budget(
    model: Model, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batch_sizes(model, lambda: gradtoken.explain(model, images, 1)) == [4, 3]
    each = kept_bytes(record(model, images[:1], queries=False))
    monkeypatch.setattr(batching, "FIRST_SIZE", 1)
    monkeypatch.setattr(batching, "CPU_BUDGET", 2 * each)
    assert batch_sizes(model, lambda: gradtoken.explain(model, images, 1)) == [1, 2, 2, 2]
    monkeypatch.setattr(batching, "CPU_BUDGET", each // 2)
    assert batch_sizes(model, lambda: gradtoken.explain(model, images, 1)) == [1] * 7


def test_kept_bytes_of_queries_keys_and_values(model: Model, images: Tensor) -> None:
    trace = record(model, images)
    tokens = 65 * 48 * 8
    assert kept_bytes(trace) == 7 * 4 * 3 * tokens


def test_run_fitting_halves_batch_on_out_of_memory(images: Tensor) -> None:
    class Small(type(tiny_vit())):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 2:
                raise torch.OutOfMemoryError("too many at once")
            return super().forward(x)

    module = tiny_vit()
    expected = gradtoken.explain(gradtoken.wrap(module), images, 1).tokens
    module.__class__ = Small
    small = gradtoken.wrap(module)
    results = []
    sizes = batch_sizes(small, lambda: results.append(gradtoken.explain(small, images, 1)))
    assert sizes[:4] == [4, 2, 2, 3]
    torch.testing.assert_close(results[0].tokens, expected)
    with pytest.raises(torch.OutOfMemoryError):
        gradtoken.explain(small, images, 1, batch_size=4)


@pytest.mark.parametrize("wrong", [0, -1, True, 2.0, "many", None])
def test_batch_size_rejects_other_values(model: Model, images: Tensor, wrong: object) -> None:
    with pytest.raises(ImageError, match='must be "auto" or a number from 1 up'):
        gradtoken.explain(model, images, 1, batch_size=wrong)


def test_free_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert free_bytes(torch.device("cpu")) > 1 << 20
    monkeypatch.setattr(batching, "MEMINFO", tmp_path / "none")
    assert free_bytes(torch.device("cpu")) > 1 << 20


def test_batch_size_number_is_not_adapted(model: Model, images: Tensor) -> None:
    size = BatchSize(5)
    size.adapt(record(model, images))
    assert size.current == 5
