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
from tests.trace.test_record import Snapshot


def by(method: str):
    def explain(model: Model, images: Tensor) -> Tensor:
        return gradtoken.explain(model, images, 3, method=method).tokens[:, 0].flatten(1)

    return explain


def test_rank_correlation_is_spearmans() -> None:
    from scipy.stats import spearmanr

    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 4, 30, generator=generator).double()
    one[:, 5:9] = 0.25
    found = rank_correlation(one, other)
    expected = [spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, expected)
    assert rank_correlation(torch.ones(1, 5), torch.rand(1, 5)).isnan().all()
    unknown = torch.tensor([[1.0, torch.nan, 3.0]])
    assert rank_correlation(unknown, torch.tensor([[1.0, 2.0, 3.0]])).isnan().all()


def test_copies_have_the_models_activation(model: Model) -> None:
    said = gradtoken.wrap(model.module, activation="sigmoid")
    seen = []

    def explain(one: Model, images: Tensor) -> Tensor:
        seen.append(one.activation)
        return by("gradtoken")(one, images)

    cascading_randomisation(said, images_for((64, 64)), explain)
    assert set(seen) == {"sigmoid"}


def test_a_map_of_the_class_changes_with_the_head_and_attention_does_not(
    model: Model, batch: Tensor
) -> None:
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


def test_a_shift_that_the_model_does_not_see(model: Model, batch: Tensor) -> None:
    before = Snapshot(model.module)
    assert input_shift(model, batch, by("gradtoken")).max() < 1e-5
    assert input_shift(model, batch, by("rollout")).max() < 1e-5
    assert input_shift(model, batch, by("input-x-gradient")).min() > 0.05
    before.check(model.module)


def test_models_it_cannot_be_done_to_are_refused() -> None:
    swin = gradtoken.wrap(seeded(ZOO["swin_tiny_patch4_window7_224"].build))
    size = ZOO["swin_tiny_patch4_window7_224"].size
    with pytest.raises(MethodError, match="goes down block by block, and SwinTransformer is"):
        cascading_randomisation(swin, images_for(size), by("gradtoken"))
    model = gradtoken.wrap(seeded(ZOO["vit_tiny_patch16_224"].build))
    with pytest.raises(MethodError, match="does not begin with a convolution without padding"):
        input_shift(model, images_for(ZOO["vit_tiny_patch16_224"].size), by("gae"), (1.0, 2.0))
