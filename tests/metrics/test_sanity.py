"""Sanity checks on a tiny model: what must change changes, what must not does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.errors import MethodError
from gradtoken.metrics.sanity import cascading_randomisation, input_shift, rank_correlation
from gradtoken.models import Model
from tests.conftest import images_for
from tests.models.zoo import ZOO, seeded
from tests.snapshot import Snapshot


def by(method: str):
    def explain(model: Model, images: Tensor) -> Tensor:
        return gradtoken.explain(model, images, 3, method=method).tokens[:, 0].flatten(1)

    return explain


def test_rank_correlation_equals_scipy() -> None:
    from scipy.stats import spearmanr

    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 4, 30, generator=generator).double()
    one[:, 5:9] = 0.25
    result = rank_correlation(one, other)
    expected = [spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(result, expected)
    assert rank_correlation(torch.ones(1, 5), torch.rand(1, 5)).isnan().all()
    unknown = torch.tensor([[1.0, torch.nan, 3.0]])
    assert rank_correlation(unknown, torch.tensor([[1.0, 2.0, 3.0]])).isnan().all()


def test_randomised_copy_keeps_activation(model: Model) -> None:
    sigmoid = gradtoken.wrap(model.module, activation="sigmoid")
    activations = []

    def explain(copy: Model, images: Tensor) -> Tensor:
        activations.append(copy.activation)
        return by("gradtoken")(copy, images)

    cascading_randomisation(sigmoid, images_for((64, 64)), explain)
    assert set(activations) == {"sigmoid"}


def test_randomised_head_changes_class_maps_not_attention(model: Model, batch: Tensor) -> None:
    before = Snapshot(model.module)
    ours = cascading_randomisation(model, batch, by("gradtoken"))
    attention = cascading_randomisation(model, batch, by("rollout"))
    before.check(model.module)
    names = ["head", "block 3", "block 2", "block 1", "block 0", "embedding"]
    assert [stage.name for stage in ours] == names
    assert ours[0].correlation.max() < 0.9
    torch.testing.assert_close(attention[0].correlation, torch.ones(2).double())
    assert attention[-1].correlation.abs().max() < 0.6
    again = cascading_randomisation(model, batch, by("gradtoken"))
    assert torch.equal(again[-1].correlation, ours[-1].correlation)


def test_input_shift_invariant_and_sensitive_methods(model: Model, batch: Tensor) -> None:
    before = Snapshot(model.module)
    assert input_shift(model, batch, by("gradtoken")).max() < 1e-5
    assert input_shift(model, batch, by("rollout")).max() < 1e-5
    assert input_shift(model, batch, by("input-x-gradient")).min() > 0.05
    before.check(model.module)


def test_sanity_checks_reject_unsupported_models() -> None:
    swin = gradtoken.wrap(seeded(ZOO["swin_tiny_patch4_window7_224"].build))
    size = ZOO["swin_tiny_patch4_window7_224"].size
    with pytest.raises(MethodError, match="goes down block by block, and SwinTransformer is"):
        cascading_randomisation(swin, images_for(size), by("gradtoken"))
    model = gradtoken.wrap(seeded(ZOO["vit_tiny_patch16_224"].build))
    with pytest.raises(MethodError, match="does not begin with a convolution without padding"):
        input_shift(model, images_for(ZOO["vit_tiny_patch16_224"].size), by("gae"), (1.0, 2.0))
