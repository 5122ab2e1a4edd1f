"""Quantus scores our methods through its own call."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.adapters.quantus import quantus_explain_func
from gradtoken.images.patch_grid import to_pixels
from gradtoken.models import Model

quantus = pytest.importorskip("quantus", reason="Quantus cannot be loaded", exc_type=ImportError)


def test_quantus_maps_equal_explain(model: Model, batch: Tensor) -> None:
    attributions = quantus_explain_func(model.module, batch.numpy(), np.array([3, 7]), method="gae")
    tokens = gradtoken.explain(model, batch, [[3], [7]], method="gae").tokens[:, 0]
    assert attributions.shape == (2, 1, 64, 64)
    np.testing.assert_allclose(attributions[:, 0], to_pixels(tokens, (64, 64)), rtol=1e-5)


def test_quantus_activation_of_module(model: Model, batch: Tensor) -> None:
    options = {"method": "rise", "masks": 6, "cells": 3}
    attributions = quantus_explain_func(
        model.module, batch.numpy(), np.array([3, 7]), activation="sigmoid", **options
    )
    other = gradtoken.wrap(model.module, activation="sigmoid")
    tokens = gradtoken.explain(other, batch, [[3], [7]], **options).tokens[:, 0]
    np.testing.assert_allclose(attributions[:, 0], to_pixels(tokens, (64, 64)), rtol=1e-5)


def test_quantus_metric_separates_methods() -> None:
    demo = gradtoken.load("demo", device="cpu")
    scene = gradtoken.datasets.Scenes("test", objects=1, seed=4)[2]
    pixels = demo.preprocess(scene.image)[None].numpy()
    mask = torch.from_numpy(scene.masks[None]).numpy()
    scores = {}
    for method in ("gradtoken", "rollout"):
        metric = quantus.RelevanceMassAccuracy(abs=False, normalise=False, disable_warnings=True)
        (scores[method],) = metric(
            model=demo.module,
            x_batch=pixels,
            y_batch=np.array(scene.labels),
            s_batch=mask,
            explain_func=quantus_explain_func,
            explain_func_kwargs={"method": method},
        )
    assert scores["gradtoken"] > scores["rollout"] > 0
