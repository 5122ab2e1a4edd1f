"""Perturbation against the published protocol as a plain loop, and its metrics by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.errors import MethodError
from gradtoken.metrics.perturbation import (
    FRACTIONS,
    PerturbationProtocol,
    Perturbed,
    abpc,
    aopc,
    log_odds,
    perturb,
)
from gradtoken.models import Model
from tests.conftest import images_for

NORMALISATION = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
LABELS = torch.tensor([3, 7, 1, 3])


@pytest.fixture
def toy(model: Model) -> tuple[Model, Tensor, Tensor]:
    images = images_for((64, 64), 4).clamp(-1, 1)
    tokens = gradtoken.explain(model, images, [[int(c)] for c in LABELS], method="gae").tokens
    maps = torch.nn.functional.interpolate(tokens, (64, 64), mode="bilinear")[:, 0]
    return model, images, maps


def published(model: Model, image: Tensor, relevance: Tensor, label: int, sign: int) -> list[bool]:
    """Pixels of RGB in 0..1 set to 0 before normalisation, one fraction after the other."""
    hits = []
    for k in FRACTIONS:
        rgb = (image * 0.5 + 0.5).clone()
        order = np.argsort(-sign * relevance.flatten().numpy(), kind="stable")
        for place in order[: int(64 * 64 * k)]:
            rgb[:, place // 64, place % 64] = 0
        hits.append(int(model(((rgb - 0.5) / 0.5)[None])[0].argmax()) == label)
    return hits


@pytest.mark.parametrize(("direction", "sign"), [("positive", 1), ("negative", -1)])
def test_perturb_follows_published_protocol(toy, direction: str, sign: int) -> None:
    model, images, maps = toy
    labels = model(images).argmax(1)
    labels[0] = 9
    result = perturb(model, images, maps, LABELS, labels, direction, **NORMALISATION)
    expected = np.array(
        [
            published(model, image, relevance, int(label), sign)
            for image, relevance, label in zip(images, maps, labels, strict=True)
        ]
    )
    assert (result.hits[:, 1:].numpy() == expected).all()
    assert result.hits[1:, 0].all()
    assert 0 < expected.mean() < 1
    accuracy = expected.mean(axis=0)
    area = 100 * sum((a + b) / 2 * 0.1 for a, b in pairwise(accuracy))
    assert abs(float(result.auc().mean()) - area) < 1e-6
    clean = area + 100 * (result.hits[:, 0].double().mean() + accuracy[0]) / 2 * 0.1
    assert abs(float(result.auc(clean=True).mean()) - float(clean)) < 1e-6


def test_perturb_probability_is_of_explained_class(toy) -> None:
    model, images, maps = toy
    result = perturb(
        model, images, maps, LABELS, None, "positive", fill="mean", fractions=[0.5], **NORMALISATION
    )
    order = maps[2].flatten().argsort(descending=True)[:2048]
    changed = images[2].clone().flatten(1)
    changed[:, order] = images[2].mean(dim=(1, 2))[:, None]
    expected = model(changed.unflatten(1, (64, 64))[None]).softmax(-1)[0, 1]
    torch.testing.assert_close(result.probability[2, 1], expected)
    torch.testing.assert_close(
        result.probability[:, 0], model(images).softmax(-1)[range(4), LABELS]
    )
    assert result.hits[:, 0].all()
    assert result.fractions == (0.0, 0.5)


def test_curve_metrics_by_hand() -> None:
    most = torch.tensor([[0.8, 0.4, 0.9]]).double()
    least = torch.tensor([[0.8, 0.7, 0.5]]).double()
    assert float(aopc(most)) == pytest.approx((0.4 - 0.1) / 2)
    assert float(aopc(most, variant="attcat")) == pytest.approx((0.4 + 0.1) / 2)
    odds = (np.log(0.5) + np.log(9 / 8)) / 2
    assert float(log_odds(most)) == pytest.approx(odds)
    assert float(log_odds(most, variant="libragrad")) == pytest.approx(-odds)
    for figure in (aopc, log_odds):
        with pytest.raises(MethodError, match="no variant is named 'samek'; use 'attcat' or"):
            figure(most, variant="samek")
    assert float(abpc(least, most)) == pytest.approx((0 + 0.3 - 0.4) / 3)


def test_auc_by_hand() -> None:
    hits = torch.tensor([[True, True, False, True]])
    result = Perturbed((0.0, 0.2, 0.4, 0.8), hits, torch.zeros(1, 4))
    assert float(result.auc()) == pytest.approx(100 * (0.5 * 0.2 + 0.5 * 0.4))
    assert float(result.auc(clean=True)) == pytest.approx(100 * (0.2 + 0.5 * 0.2 + 0.5 * 0.4))


def test_perturb_rejects_invalid_arguments(toy) -> None:
    model, images, maps = toy
    with pytest.raises(MethodError, match="direction='up' is unknown; use 'positive' or"):
        perturb(model, images, maps, LABELS, None, "up", **NORMALISATION)  # type: ignore[arg-type]
    with pytest.raises(MethodError, match=r"fractions=\[0.0\] is not possible"):
        perturb(model, images, maps, LABELS, None, "positive", fractions=[0.0], **NORMALISATION)
    bad = maps.clone()
    bad[1, 3, 4] = torch.nan
    with pytest.raises(MethodError, match="NaN or infinite relevance, so its pixels have no order"):
        perturb(model, images, bad, LABELS, None, "positive", **NORMALISATION)
    with pytest.raises(MethodError, match="4 maps of 1024 pixels do not fit 4 images of 64x64"):
        perturb(model, images, maps[:, ::2, ::2], LABELS, None, "positive", **NORMALISATION)


def test_accuracy_is_share_of_hits() -> None:
    hits = torch.tensor([[True, True, False], [True, False, False]])
    result = Perturbed((0.0, 0.5, 0.9), hits, torch.zeros(2, 3))
    assert result.accuracy().tolist() == [1, 0.5, 0]


def test_perturb_protocol_equals_options(toy) -> None:
    model, images, maps = toy
    inputs = (model, images, maps, LABELS, None, "positive")
    expected = perturb(*inputs, fill="grey", fractions=[0.5], **NORMALISATION)
    protocol = PerturbationProtocol(fill="grey", fractions=[0.9], **NORMALISATION)
    result = perturb(*inputs, protocol, fractions=[0.5])
    assert torch.equal(result.probability, expected.probability)
    assert result.fractions == (0.0, 0.5)
    with pytest.raises(TypeError, match="missing 2 required keyword-only arguments: 'mean' and"):
        perturb(*inputs, fill="grey")
