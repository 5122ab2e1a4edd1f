"""Agreement with other implementations of the same method on the same model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.models import Model

grad_cam = pytest.importorskip(
    "pytorch_grad_cam", reason="pytorch-grad-cam cannot be loaded", exc_type=ImportError
)


def test_grad_cam_is_pytorch_grad_cams(model: Model, batch: Tensor) -> None:
    """Its maps are scaled to 0..1 and enlarged; ours at tokens agree up to that."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def laid_out(tokens: Tensor) -> Tensor:
        return tokens[:, 1:].unflatten(1, (8, 8)).permute(0, 3, 1, 2)

    module = model.module
    with grad_cam.GradCAM(module, [module.blocks[-1].norm1], reshape_transform=laid_out) as theirs:
        theirs.batch_size = 2
        activations = theirs.activations_and_grads
        theirs(batch, [ClassifierOutputTarget(3), ClassifierOutputTarget(3)])
        values, slopes = activations.activations[0], activations.gradients[0]
        weights = theirs.get_cam_weights(batch, None, None, values.detach().numpy(), slopes.numpy())
    expected = (torch.from_numpy(weights)[..., None, None] * values).sum(1).clamp_min(0)
    ours = gradtoken.explain(model, batch, 3, method="grad-cam").tokens[:, 0]
    torch.testing.assert_close(ours, expected.detach().float())


def test_raw_attention_is_transformers_own() -> None:
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


def test_gae_is_captums_gradient_by_attention(model: Model, batch: Tensor) -> None:
    """captum's LayerGradientXActivation of timm's unfused attention gives A * dA."""
    from captum.attr import LayerGradientXActivation

    module = model.module
    for block in module.blocks:
        block.attn.fused_attn = False
    layers = [block.attn.attn_drop for block in module.blocks]
    found = LayerGradientXActivation(module, layers).attribute(batch.requires_grad_(), target=3)
    relevance = torch.eye(65).double().expand(2, 65, 65)
    for product in found:
        relevance = relevance + product.detach().clamp_min(0).mean(1) @ relevance
    ours = gradtoken.explain(model, batch.detach(), 3, method="gae").tokens[:, 0].flatten(1)
    torch.testing.assert_close(ours, relevance[:, 0, 1:].float())
