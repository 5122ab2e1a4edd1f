"""Grad-CAM on tokens and on attention against its equations written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.conftest import inputs
from tests.oracle import Written


def on_tokens(written: Written, label: int) -> Tensor:
    blocks, logits = written.forward()
    tokens = blocks[-1].normed
    (grad,) = torch.autograd.grad(logits[label], tokens)
    weights = grad[written.module.num_prefix_tokens :].mean(0)
    return torch.stack([torch.dot(weights, token).clamp_min(0) for token in tokens])


def on_attention(written: Written, label: int) -> Tensor:
    blocks, grads = written.attention_gradients(label)
    heads = [
        attention[0] * gradient[0].mean()
        for attention, gradient in zip(blocks[-1].attention, grads[-1], strict=True)
    ]
    return torch.stack(heads).mean(0).clamp_min(0)


def test_grad_cam_on_tokens_equals_equation(variant: Model) -> None:
    assert_equals(variant, "grad-cam", on_tokens)


def test_grad_cam_on_attention_equals_equation(model: Model) -> None:
    explanation = gradtoken.explain(
        model, inputs(model), [3, 7], method="grad-cam", features="attention"
    )
    for b, image in enumerate(inputs(model)):
        for k, label in enumerate([3, 7]):
            expected = on_attention(Written(model.module, image), label).detach()[1:]
            torch.testing.assert_close(explanation.tokens[b, k].flatten(), expected.float())
    assert float(explanation.tokens.max()) > 0


def test_grad_cam_rejects_unknown_features() -> None:
    with pytest.raises(MethodError, match="grad-cam's features is 'pixels'; it can be 'tokens' or"):
        make_method("grad-cam", features="pixels")


def test_grad_cam_equals_pytorch_grad_cam(model: Model, batch: Tensor) -> None:
    """Its maps are scaled to 0..1 and enlarged; ours at tokens agree up to that."""
    grad_cam = pytest.importorskip(
        "pytorch_grad_cam", reason="pytorch-grad-cam cannot be loaded", exc_type=ImportError
    )
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
