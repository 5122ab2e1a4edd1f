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


def test_tokens(variant: Model) -> None:
    assert_equals(variant, "grad-cam", on_tokens)


def test_attention(model: Model) -> None:
    found = gradtoken.explain(model, inputs(model), [3, 7], method="grad-cam", features="attention")
    for b, image in enumerate(inputs(model)):
        for k, label in enumerate([3, 7]):
            expected = on_attention(Written(model.module, image), label).detach()[1:]
            torch.testing.assert_close(found.tokens[b, k].flatten(), expected.float())
    assert float(found.tokens.max()) > 0


def test_features_it_does_not_have_are_refused() -> None:
    with pytest.raises(MethodError, match="grad-cam's features is 'pixels'; it can be 'tokens' or"):
        make_method("grad-cam", features="pixels")
