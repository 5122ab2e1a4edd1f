"""Methods that weigh by a probability take the one that the model means."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from tests.conftest import images_for, tiny_vit

METHODS = {"rise": {"masks": 12, "cells": 3}, "vit-cx": {"distance": 0.5}}


def rise_by_hand(value, image: Tensor) -> Tensor:
    masks = torch.cat(list(make_method("rise", **METHODS["rise"]).drawn((64, 64)))).double()
    total = sum(value(image * mask) * mask for mask in masks) / (12 * 0.5)
    return total.unfold(0, 8, 8).unfold(1, 8, 8).mean((-1, -2)).float()


@pytest.mark.parametrize(("classes", "activation"), [(1, None), (3, "sigmoid"), (3, "none")])
def test_rise_weighs_by_the_activation(classes: int, activation: str | None) -> None:
    module = tiny_vit(num_classes=classes)
    images, last = images_for((64, 64)), classes - 1

    def value(image: Tensor) -> Tensor:
        logit = module(image[None]).detach()[0, last]
        return logit if activation == "none" else 1 / (1 + (-logit).exp())

    model = gradtoken.wrap(module, activation=activation)
    found = gradtoken.explain(model, images, last, method="rise", **METHODS["rise"])
    for b in range(2):
        torch.testing.assert_close(found.tokens[b, 0], rise_by_hand(value, images[b]))


@pytest.mark.parametrize("method", METHODS)
def test_one_logit_gives_each_image_and_model_its_own_map(method: str) -> None:
    images = images_for((64, 64))
    maps = [
        gradtoken.explain(
            gradtoken.wrap(tiny_vit(seed, num_classes=1)), images, 0, method=method, **options
        ).tokens[:, 0]
        for seed in (0, 1)
        for options in [METHODS[method]]
    ]
    (one, two), (other, _) = maps
    scale = one.abs().max()
    assert (one - two).abs().max() > 1e-3 * scale
    assert (one - other).abs().max() > 1e-3 * scale


@pytest.mark.parametrize("method", METHODS)
def test_a_sigmoid_is_that_of_the_function(method: str) -> None:
    images, options = images_for((64, 64)), METHODS[method]
    model = gradtoken.wrap(tiny_vit(), activation="sigmoid")
    found = gradtoken.explain(model, images, 3, method=method, **options)
    by_hand = gradtoken.explain(model, images, lambda z: z[3].sigmoid(), method=method, **options)
    torch.testing.assert_close(found.tokens, by_hand.tokens)
