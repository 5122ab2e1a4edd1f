"""Raw attention against its definition, and against transformers."""

from __future__ import annotations

import torch

import gradtoken
from gradtoken.models import Model
from tests.conftest import inputs
from tests.oracle import Written


def test_raw_attention_equals_class_row_of_last_block(variant: Model) -> None:
    images = inputs(variant)
    maps = gradtoken.explain(variant, images, [1, 2], method="raw-attention").tokens.flatten(2)
    for b, image in enumerate(images):
        blocks, _ = Written(variant.module, image).forward()
        expected = blocks[-1].attention.mean(0)[0, variant.layout.prefix :]
        for k in range(2):
            torch.testing.assert_close(maps[b, k], expected.detach().float())


def test_raw_attention_and_rollout_equal_those_of_transformers() -> None:
    """transformers returns attention itself, where it is computed eagerly."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=3, num_attention_heads=3
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = ViTForImageClassification._from_config(config, attn_implementation="eager")
    module = module.double().eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        attentions = module(pixels, output_attentions=True).attentions
    model = gradtoken.wrap(module)
    raw = gradtoken.explain(model, pixels, 0, method="raw-attention").tokens[:, 0].flatten(1)
    torch.testing.assert_close(raw, attentions[-1].mean(1)[:, 0, 1:].float())
    product = torch.eye(17).double()
    for attention in attentions:
        mixing = attention.mean(1) + torch.eye(17)
        product = (mixing / mixing.sum(-1, keepdim=True)) @ product
    rollout = gradtoken.explain(model, pixels, 0, method="rollout").tokens[:, 0].flatten(1)
    torch.testing.assert_close(rollout, product[:, 0, 1:].float())
