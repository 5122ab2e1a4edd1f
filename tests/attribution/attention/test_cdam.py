"""CDAM, smooth and integrated, against its equations written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace.record import record
from tests.attribution.compare import assert_equals
from tests.conftest import inputs
from tests.oracle import Written


def times_gradient(
    written: Written, label: int, change: Callable[[Tensor], Tensor], fraction: float = 1
) -> Tensor:
    blocks, logits = written.forward(normed_last=change)
    tokens = blocks[-1].normed
    (grad,) = torch.autograd.grad(logits[label], tokens)
    return (tokens / fraction * grad).sum(-1)


def test_cdam_plain_equals_equation(variant: Model) -> None:
    assert_equals(variant, "cdam", lambda w, label: times_gradient(w, label, lambda t: t))


def test_cdam_integrated_equals_equation(model: Model) -> None:
    def by_hand(written: Written, label: int) -> Tensor:
        steps = [s / 5 for s in range(1, 6)]
        maps = [times_gradient(written, label, lambda t, s=s: s * t, s) for s in steps]
        return torch.stack(maps).mean(0)

    assert_equals(model, "cdam", by_hand, gradient="integrated", steps=5)


def test_cdam_smooth_equals_equation(model: Model) -> None:
    def by_hand(written: Written, label: int) -> Tensor:
        generator = torch.Generator().manual_seed(4)
        maps = []
        for _ in range(3):
            drawn = torch.randn(65, 48, generator=generator).double()
            maps.append(times_gradient(written, label, lambda t, d=drawn: t + 0.2 * t.std() * d))
        return torch.stack(maps).mean(0)

    assert_equals(model, "cdam", by_hand, gradient="smooth", steps=3, noise=0.2, seed=4)


@pytest.mark.slow
def test_cdam_integrated_is_complete(model: Model) -> None:
    """Completeness: over all tokens, the score with the block's tokens minus that with zeros."""
    images = inputs(model)
    trace = record(model, images)
    targets = resolve([3], trace.logits, model.labels)
    written = Written(model.module, images[0])
    difference = written.forward()[1][3] - written.forward(normed_last=torch.zeros_like)[1][3]
    points = [(s - 0.5) / 200 for s in range(1, 201)]
    maps = [times_gradient(written, 3, lambda t, s=s: s * t, s).detach() for s in points]
    by_hand = torch.stack(maps).mean(0)
    torch.testing.assert_close(by_hand.sum(), difference, rtol=1e-4, atol=1e-6)
    method = make_method("cdam", gradient="integrated", steps=400)
    spatial = method(trace, targets)[0, 0].sum()
    torch.testing.assert_close(spatial, by_hand[1:].sum(), rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"gradient": "rough"}, "cdam's gradient is 'rough'; it can be 'plain', 'smooth'"),
        ({"steps": 0}, "cdam's steps is 0; it must be a whole number from 1 up"),
        ({"noise": -1}, "cdam's noise is -1; it must be a number from 0 up"),
    ],
)
def test_cdam_rejects_options_out_of_range(option: dict, words: str) -> None:
    with pytest.raises(MethodError, match=words):
        make_method("cdam", **option)
