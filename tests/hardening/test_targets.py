"""Targets that are no targets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.errors import MethodError, TargetError, did_you_mean
from gradtoken.models import Model
from gradtoken.targets import Against, ClassTarget, Contrast
from tests.conftest import tiny_vit


@pytest.mark.parametrize(
    "target",
    [
        ClassTarget("class 1"),
        ClassTarget(True),
        ClassTarget(1.0),
        Contrast(1, "class 2"),
        Against(1, ()),
        Against(1, None),
        Against(1, (2,), math.nan),
        Against(1, (2,), "x"),
        Against(1, (99,)),
        ClassTarget,
        dict,
        torch.tensor([1, 2], device="meta"),
        torch.tensor(1, device="meta"),
        torch.tensor([1.5]),
        np.array([True]),
        lambda z: z[0].to(torch.complex64),
        "9" * 100_000,
        "x" * 100_000,
        {1: 2},
        [[[1]], [[2]]],
    ],
    ids=lambda given: repr(given).partition(" at 0x")[0][:40],
)
def test_explain_rejects_invalid_target(model: Model, batch: Tensor, target: object) -> None:
    with pytest.raises(TargetError) as caught:
        gradtoken.explain(model, batch, target)
    assert len(str(caught.value)) < 1100


def test_explain_raises_errors_of_target_function(model: Model, batch: Tensor) -> None:
    with pytest.raises(ZeroDivisionError):
        gradtoken.explain(model, batch, lambda z: z[0] / (1 // 0))


def test_did_you_mean_ignores_long_names() -> None:
    assert did_you_mean("x" * 201, ["x" * 200]) == ""
    assert did_you_mean("catt", ["cat"]) == "; did you mean 'cat'?"


def test_labels_are_printable() -> None:
    labels = gradtoken.wrap(tiny_vit(num_classes=2), labels=["\x1b]0;owned\x07cat", "dog"]).labels
    assert list(labels) == ["\ufffd]0;owned\ufffdcat", "dog"]
    assert labels.find("dog") == 1


def test_explain_rejects_or_bounds_extreme_options(model: Model, batch: Tensor) -> None:
    with pytest.raises(MethodError, match="gradtoken's preset is"):
        gradtoken.explain(model, batch, 1, preset=["sharp"])
    far = gradtoken.explain(model, batch, 1, spread="near", reach=1e300).tokens
    assert float(far.std(dim=(-2, -1)).max()) == pytest.approx(0, abs=1e-6)
    gradtoken.explain(model, batch, 1, spread="token", reach=1e300)
