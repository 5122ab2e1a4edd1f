"""Spreading relevance along attention."""

from __future__ import annotations

import pytest
import torch

import gradtoken
from gradtoken.attribution import make_method, spread
from gradtoken.errors import MethodError
from gradtoken.targets import resolve
from gradtoken.trace.record import record
from tests.models.zoo import ZOO, seeded


def test_spread_auto_without_global_attention_is_near() -> None:
    entry = ZOO["swin_tiny_patch4_window7_224"]
    model = gradtoken.wrap(seeded(entry.build))
    images = torch.randn(1, 3, *entry.size, generator=torch.Generator().manual_seed(1)).double()
    trace = record(model, images)
    targets = resolve([1], trace.logits, model.labels)
    near = make_method("gradtoken", spread="near")(trace, targets)
    assert torch.equal(make_method("gradtoken")(trace, targets), near)
    with pytest.raises(MethodError, match='spread="mutual" needs one attention between all tokens'):
        make_method("gradtoken", spread="mutual")(trace, targets)


def test_spread_along_keeps_relevance_of_hidden_patches() -> None:
    affinity = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 3.0], [0.0, 3.0, 1.0]]]).double()
    relevance = torch.tensor([[[5.0, 4.0, 8.0]]]).double()
    actual = spread.spread_along(relevance, affinity)
    torch.testing.assert_close(actual, torch.tensor([[[5.0, 7.0, 5.0]]]).double())
