"""Comparing a method with its equation, image by image and class by class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gradtoken.attribution import make_method
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace.record import record
from tests.conftest import inputs
from tests.oracle import Written

CLASSES = [3, 7]


def assert_equals(
    model: Model,
    method: str,
    by_hand: Callable[[Written, int], Tensor],
    *,
    oracle: type[Written] = Written,
    **options: Any,
) -> None:
    """The method's maps are `by_hand(oracle of the model, class)` (all tokens) in float64."""
    images = inputs(model)
    trace = record(model, images)
    maps = make_method(method, **options)(trace, resolve(CLASSES, trace.logits, model.labels))
    assert maps.shape == (len(images), len(CLASSES), trace.spatial)
    assert not maps.requires_grad
    for b, image in enumerate(images):
        for k, label in enumerate(CLASSES):
            expected = by_hand(oracle(model.module, image), label).detach()
            expected = expected[model.layout.prefix :]
            scale = float(expected.abs().max())
            assert scale > 0
            torch.testing.assert_close(maps[b, k], expected, rtol=1e-7, atol=1e-9 * scale)
