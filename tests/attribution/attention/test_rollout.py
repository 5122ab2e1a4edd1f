"""Raw attention and rollout against their definitions written out."""

from __future__ import annotations

import torch

import gradtoken
from gradtoken.models import Model
from tests.conftest import inputs
from tests.oracle import Written


def test_raw_attention_is_the_class_row_of_the_last_block(variant: Model) -> None:
    images = inputs(variant)
    found = gradtoken.explain(variant, images, [1, 2], method="raw-attention").tokens.flatten(2)
    for b, image in enumerate(images):
        blocks, _ = Written(variant.module, image).forward()
        expected = blocks[-1].attention.mean(0)[0, variant.layout.prefix :]
        for k in range(2):
            torch.testing.assert_close(found[b, k], expected.detach().float())


def test_rollout_multiplies_attention_with_the_residual(variant: Model) -> None:
    images = inputs(variant)
    found = gradtoken.explain(variant, images, [1, 2], method="rollout").tokens.flatten(2)
    for b, image in enumerate(images):
        blocks, _ = Written(variant.module, image).forward()
        product = torch.eye(blocks[0].attention.shape[-1], dtype=torch.float64)
        for block in blocks:
            mixing = block.attention.mean(0) + torch.eye(len(product), dtype=torch.float64)
            product = (mixing / mixing.sum(-1, keepdim=True)) @ product
        expected = product[0, variant.layout.prefix :]
        for k in range(2):
            torch.testing.assert_close(found[b, k], expected.detach().float())


def test_maps_without_a_class_are_coupled_by_construction(model: Model, batch) -> None:
    for method in ("raw-attention", "rollout"):
        found = gradtoken.explain(model, batch, [1, 2, 3], method=method)
        assert abs(gradtoken.coupling(found) - 1) < 1e-6
    assert gradtoken.coupling(gradtoken.explain(model, batch, [1, 2, 3])) < 0.9
