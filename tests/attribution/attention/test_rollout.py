"""Attention rollout against its definition written out."""

from __future__ import annotations

import torch

import gradtoken
from gradtoken.models import Model
from tests.conftest import inputs
from tests.oracle import Written


def test_rollout_equals_definition(variant: Model) -> None:
    images = inputs(variant)
    maps = gradtoken.explain(variant, images, [1, 2], method="rollout").tokens.flatten(2)
    for b, image in enumerate(images):
        blocks, _ = Written(variant.module, image).forward()
        product = torch.eye(blocks[0].attention.shape[-1], dtype=torch.float64)
        for block in blocks:
            mixing = block.attention.mean(0) + torch.eye(len(product), dtype=torch.float64)
            product = (mixing / mixing.sum(-1, keepdim=True)) @ product
        expected = product[0, variant.layout.prefix :]
        for k in range(2):
            torch.testing.assert_close(maps[b, k], expected.detach().float())


def test_rollout_and_raw_attention_are_equal_for_all_classes(model: Model, batch) -> None:
    for method in ("raw-attention", "rollout"):
        explanation = gradtoken.explain(model, batch, [1, 2, 3], method=method)
        assert abs(gradtoken.coupling(explanation) - 1) < 1e-6
    assert gradtoken.coupling(gradtoken.explain(model, batch, [1, 2, 3])) < 0.9
