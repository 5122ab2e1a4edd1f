"""Checks and progress of a job of several batches."""

from __future__ import annotations

import pytest
from torch import Tensor

import gradtoken
from gradtoken.errors import TargetError
from gradtoken.explaining import job
from gradtoken.models import Model
from tests.conftest import images_for
from tests.forwards import batch_sizes


@pytest.fixture
def images() -> Tensor:
    return images_for((64, 64), 7)


def test_run_calls_progress(model: Model, images: Tensor) -> None:
    reported: list[tuple[int, int]] = []
    gradtoken.explain(model, images, 1, batch_size=3, progress=lambda *done: reported.append(done))
    assert reported == [(3, 7), (6, 7), (7, 7)]


def test_check_memory_after_first_batch(
    model: Model, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 7 * 10 * 64 * 4
    monkeypatch.setattr(job, "free_bytes", lambda device: needed)
    assert gradtoken.explain(model, images, "all", batch_size=2).tokens.shape == (7, 10, 8, 8)
    monkeypatch.setattr(job, "free_bytes", lambda device: needed - 1)
    observed = []

    def run() -> None:
        with pytest.raises(TargetError, match=r"maps of 10 targets for 7 images.*explain_each"):
            gradtoken.explain(model, images, "all", batch_size=2)

    observed = batch_sizes(model, run)
    assert observed == [2]
