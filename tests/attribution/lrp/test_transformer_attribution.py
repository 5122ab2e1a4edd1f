"""Transformer Attribution against layer-wise relevance written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.attribution.lrp.by_hand import attention_relevance
from tests.attribution.lrp.cubing import cubing_vit
from tests.conftest import images_for, inputs, tiny_vit
from tests.oracle import Written


def by_hand(written: Written, label: int, start: int = 0) -> Tensor:
    _, grads = written.attention_gradients(label)
    relevance, _ = attention_relevance(written, label)
    product = torch.eye(grads[0].shape[-1], dtype=torch.float64)
    for grad, relevant in list(zip(grads, relevance, strict=True))[start:]:
        product = product + (grad * relevant).clamp_min(0).mean(0) @ product
    return product[0]


def test_transformer_attribution_equals_equation(model: Model) -> None:
    assert_equals(model, "transformer-attribution", by_hand)


def test_transformer_attribution_with_registers_and_start() -> None:
    model = gradtoken.wrap(tiny_vit(reg_tokens=3))
    assert_equals(model, "transformer-attribution", lambda w, c: by_hand(w, c, 1), start=1)


def test_relevance_by_hand_is_conserved(model: Model) -> None:
    _, arrived = attention_relevance(Written(model.module, inputs(model)[0]), 3)
    torch.testing.assert_close(arrived.sum(), torch.tensor(1, dtype=torch.float64))


def test_transformer_attribution_rejects_model_that_loses_relevance() -> None:
    model = gradtoken.wrap(cubing_vit())
    with pytest.raises(MethodError, match=r"transformer-attribution loses \d+% of the relevance"):
        gradtoken.explain(model, images_for((64, 64)), 3, method="transformer-attribution")


def test_transformer_attribution_rejects_model_without_class_token() -> None:
    model = gradtoken.wrap(tiny_vit(global_pool="avg", class_token=False))
    with pytest.raises(MethodError, match=r"from a class token, which .* \(mean of patch tokens\)"):
        gradtoken.explain(model, images_for((64, 64)), 3, method="transformer-attribution")


def test_transformer_attribution_rejects_block_that_does_not_exist(model: Model) -> None:
    with pytest.raises(MethodError, match="start is 4, but VisionTransformer has 4 blocks"):
        gradtoken.explain(model, inputs(model), 3, method="transformer-attribution", start=4)
    with pytest.raises(MethodError, match="start is -1; it must be a block's index"):
        make_method("transformer-attribution", start=-1)
