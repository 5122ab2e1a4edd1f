"""Methods behind captum's call, beside captum itself."""

from __future__ import annotations

import pytest
import torch
from captum.attr import Occlusion
from captum.metrics import infidelity
from torch import Tensor

import gradtoken
from gradtoken.captum import Attribution
from gradtoken.errors import ModelError, TargetError
from gradtoken.models import Model
from gradtoken.patch_grid import to_pixels


def test_channels_sum_to_the_map(model: Model, batch: Tensor) -> None:
    found = Attribution(model, "gae").attribute(batch, target=torch.tensor([3, 7]))
    tokens = gradtoken.explain(model, batch, [[3], [7]], method="gae").tokens[:, 0]
    assert found.shape == batch.shape
    assert found.dtype == batch.dtype
    torch.testing.assert_close(found.sum(1).float(), to_pixels(tokens, (64, 64)))


def test_targets_as_captum_takes_them(model: Model, batch: Tensor) -> None:
    live = Attribution(model.module, preset="faithful")
    one = live.attribute(batch, target=3)
    assert torch.equal(one, live.attribute(batch, target=[3, 3]))
    assert torch.equal(one, live.attribute(batch, target=torch.tensor([3, 3])))
    predicted = [int(c) for c in model(batch).argmax(1)]
    assert torch.equal(live.attribute(batch), live.attribute(batch, target=predicted))
    with pytest.raises(TargetError, match="3 targets were given for 2 inputs"):
        live.attribute(batch, target=[1, 2, 3])
    with pytest.raises(TargetError, match="take no n_steps; give options when making"):
        live.attribute(batch, target=1, n_steps=4)


def test_the_activation_of_a_live_module(model: Model, batch: Tensor) -> None:
    options = {"masks": 6, "cells": 3}
    found = Attribution(model.module, "rise", activation="sigmoid", **options).attribute(batch, 3)
    other = gradtoken.wrap(model.module, activation="sigmoid")
    tokens = gradtoken.explain(other, batch, 3, method="rise", **options).tokens[:, 0]
    torch.testing.assert_close(found.sum(1).float(), to_pixels(tokens, (64, 64)))
    with pytest.raises(ModelError, match="a Model has its activation already"):
        Attribution(model, activation="sigmoid")


def test_captums_infidelity_prefers_attribution_to_noise(model: Model, batch: Tensor) -> None:
    def perturbed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.05 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))
        return noise.double(), inputs - noise.double()

    def score(attributions: Tensor) -> float:
        return float(
            infidelity(
                model.module, perturbed, batch, attributions, target=3, normalize=True
            ).mean()
        )

    maps = Attribution(model, "input-x-gradient").attribute(batch, target=3)
    noise = torch.randn(maps.shape, generator=torch.Generator().manual_seed(1)).double()
    assert score(maps) <= score(noise)


def test_occlusion_is_captums(model: Model, batch: Tensor) -> None:
    window = (3, 8, 8)
    theirs = Occlusion(lambda x: model(x)).attribute(
        batch, window, strides=window, target=3, baselines=0
    )
    ours = gradtoken.explain(model, batch, 3, method="occlusion").tokens[:, 0]
    torch.testing.assert_close(to_pixels(ours, (64, 64), mode="nearest"), theirs[:, 0].float())
