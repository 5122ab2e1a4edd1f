"""Spreading relevance along attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method, spread
from gradtoken.errors import MethodError
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace.record import record
from tests.models.zoo import ZOO, seeded


def test_patch_attention_in_parts_of_a_batch(
    model: Model, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = record(model, batch)
    whole = spread.patch_attention(trace.global_calls(), trace.patch_grid)
    monkeypatch.setattr(spread, "_ELEMENTS", 1)
    parts = spread.patch_attention(trace.global_calls(), trace.patch_grid)
    torch.testing.assert_close(parts, whole)
    assert whole.shape == (len(batch), trace.spatial, trace.spatial)


def test_call_of_some_images_keeps_position_bias() -> None:
    """Position biases, as in EVA and BEiT, are the same for each image or not."""
    model = gradtoken.wrap(seeded(ZOO["beit_base_patch16_224"].build))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
    call = record(model, images).global_calls()[0]
    assert call.mask is not None
    for index in range(2):
        one = call.images(slice(index, index + 1))
        torch.testing.assert_close(one.rows(slice(None))[0], call.rows(slice(None))[index])


def test_spread_auto_without_global_attention_is_near() -> None:
    entry = ZOO["swin_tiny_patch4_window7_224"]
    model = gradtoken.wrap(seeded(entry.build))
    images = torch.randn(1, 3, *entry.size, generator=torch.Generator().manual_seed(1)).double()
    trace = record(model, images)
    targets = resolve([1], trace.logits, model.labels)
    near = make_method("gradtoken", spread="near")(trace, targets)
    assert torch.equal(make_method("gradtoken")(trace, targets), near)
    with pytest.raises(MethodError, match='spread="mutual" needs the attention between all tokens'):
        make_method("gradtoken", spread="mutual")(trace, targets)
