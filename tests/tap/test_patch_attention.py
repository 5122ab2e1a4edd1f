"""The attention between patches, averaged while a forward runs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.models import Model
from gradtoken.tap import patch_attention
from gradtoken.tap.patch_attention import PatchAttention
from gradtoken.trace.record import record
from tests.models.zoo import ZOO, seeded


def test_patch_attention_equals_that_of_recorded_calls(model: Model, batch: Tensor) -> None:
    blocks = (0, 1, 3)
    lean = record(model, batch, start=2, queries=False, affinity=blocks)
    whole = record(model, batch)
    expected = torch.stack(
        [whole.block_calls[b].rows(slice(None)).mean(1)[:, -64:, -64:] for b in blocks]
    ).mean(0)
    for trace in (lean, whole):
        torch.testing.assert_close(trace.attention_between_patches(blocks), expected)
    with pytest.raises(ModelError, match="was not recorded"):
        lean.attention_between_patches((0, 1))


def test_patch_attention_in_parts_of_a_batch(
    model: Model, batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = [], []
    for found, elements in ((whole, 1 << 23), (parts, 1)):
        monkeypatch.setattr(patch_attention, "_ELEMENTS", elements)
        found.append(record(model, batch, affinity=[0, 1]).attention_between_patches([0, 1]))
    torch.testing.assert_close(parts[0], whole[0])


def test_patch_attention_is_none_unless_each_block_attends_once(
    model: Model, batch: Tensor
) -> None:
    trace = record(model, batch)
    first, second = trace.block_calls[:2]
    between = PatchAttention(trace.patch_grid.positions, trace.patch_grid.tokens, (0, 1))
    between.add(first, 0)
    assert between.mean() is None
    between.add(second, 1)
    assert between.mean() is not None
    between.add(second, 1)
    assert between.mean() is None
    some = PatchAttention(trace.patch_grid.positions, trace.patch_grid.tokens, (0,))
    some.add(first.without_queries(), 0)
    assert some.mean() is None


def test_call_of_some_images_keeps_position_bias() -> None:
    """Position biases, as in EVA and BEiT, are the same for each image or not."""
    model = gradtoken.wrap(seeded(ZOO["beit_base_patch16_224"].build))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
    call = record(model, images).global_calls()[0]
    assert call.mask is not None
    for index in range(2):
        one = call.images(slice(index, index + 1))
        torch.testing.assert_close(one.rows(slice(None))[0], call.rows(slice(None))[index])
