"""RISE against its equation written out, and the values by which masks are weighed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace.record import record
from tests.attribution.pixels.by_hand import CLASSES, assert_each, by_token
from tests.conftest import images_for, tiny_vit


def test_rise_equals_equation(model: Model, batch: Tensor) -> None:
    method = make_method("rise", masks=70, cells=3, keep=0.4, seed=2)
    chunks = list(method.mask_chunks((64, 64)))
    masks = torch.cat(chunks).double()
    assert [len(chunk) for chunk in chunks] == [64, 6]
    assert masks.shape == (70, 64, 64)
    assert float(masks.min()) >= 0
    assert float(masks.max()) <= 1
    assert torch.equal(masks, torch.cat(list(method.mask_chunks((64, 64)))).double())

    def by_hand(image: Tensor, label: int) -> Tensor:
        total = sum(model((image * m)[None]).softmax(-1)[0, label] * m for m in masks)
        return by_token(total / (70 * 0.4), "mean")

    trace = record(model, batch)
    maps = method(trace, resolve(CLASSES, trace.logits, model.labels))
    assert_each(model, batch, maps, by_hand)


def test_rise_masks_keep_their_share_of_pixels() -> None:
    masks = torch.cat(list(make_method("rise", masks=400, keep=0.3).mask_chunks((64, 64))))
    assert abs(float(masks.mean()) - 0.3) < 0.03


def test_rise_runs_masks_once_for_all_targets(model: Model, batch: Tensor) -> None:
    sizes = []
    trace = record(model, batch)
    handle = model.module.patch_embed.register_forward_hook(
        lambda _, a, out: sizes.append(len(out))
    )
    method = make_method("rise", masks=10)
    together = method(trace, resolve(list(range(10)), trace.logits, model.labels))
    handle.remove()
    assert sizes == [10, 10]
    alone = method(trace, resolve([4], trace.logits, model.labels))
    torch.testing.assert_close(together[:, 4:5], alone)


def test_rise_of_function_target_takes_its_score(model: Model, batch: Tensor) -> None:
    plain = gradtoken.explain(model, batch, lambda z: z.softmax(-1)[3], method="rise", masks=8)
    named = gradtoken.explain(model, batch, 3, method="rise", masks=8)
    torch.testing.assert_close(plain.tokens, named.tokens)


METHODS = {"rise": {"masks": 12, "cells": 3}, "vit-cx": {"distance": 0.5}}


def rise_by_hand(value, image: Tensor) -> Tensor:
    masks = torch.cat(list(make_method("rise", **METHODS["rise"]).mask_chunks((64, 64)))).double()
    total = sum(value(image * mask) * mask for mask in masks) / (12 * 0.5)
    return total.unfold(0, 8, 8).unfold(1, 8, 8).mean((-1, -2)).float()


@pytest.mark.parametrize(("classes", "activation"), [(1, None), (3, "sigmoid"), (3, "none")])
def test_rise_weighs_by_activation(classes: int, activation: str | None) -> None:
    module = tiny_vit(num_classes=classes)
    images, last = images_for((64, 64)), classes - 1

    def value(image: Tensor) -> Tensor:
        logit = module(image[None]).detach()[0, last]
        return logit if activation == "none" else 1 / (1 + (-logit).exp())

    model = gradtoken.wrap(module, activation=activation)
    explanation = gradtoken.explain(model, images, last, method="rise", **METHODS["rise"])
    for b in range(2):
        torch.testing.assert_close(explanation.tokens[b, 0], rise_by_hand(value, images[b]))


@pytest.mark.parametrize("method", METHODS)
def test_target_values_of_single_logit_differ_by_image_and_model(method: str) -> None:
    images = images_for((64, 64))
    maps = [
        gradtoken.explain(
            gradtoken.wrap(tiny_vit(seed, num_classes=1)), images, 0, method=method, **options
        ).tokens[:, 0]
        for seed in (0, 1)
        for options in [METHODS[method]]
    ]
    (first, second), (another_model, _) = maps
    scale = first.abs().max()
    assert (first - second).abs().max() > 1e-3 * scale
    assert (first - another_model).abs().max() > 1e-3 * scale


@pytest.mark.parametrize("method", METHODS)
def test_target_values_of_sigmoid_equal_those_of_function(method: str) -> None:
    images, options = images_for((64, 64)), METHODS[method]
    model = gradtoken.wrap(tiny_vit(), activation="sigmoid")
    explanation = gradtoken.explain(model, images, 3, method=method, **options)
    by_hand = gradtoken.explain(model, images, lambda z: z[3].sigmoid(), method=method, **options)
    torch.testing.assert_close(explanation.tokens, by_hand.tokens)
