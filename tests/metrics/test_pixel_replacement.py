"""Ranks of pixels, and probabilities by the model's activation while pixels are replaced."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.errors import MethodError, ModelError
from gradtoken.images.patch_grid import to_pixels
from gradtoken.metrics.insertion_deletion import area, deletion, insertion
from gradtoken.metrics.perturbation import abpc, aopc, log_odds, perturb
from gradtoken.metrics.pixel_replacement import ranks
from gradtoken.models import Model
from tests.conftest import images_for, tiny_vit

NORMALISATION = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
HALF = [0.5]


def model_of(classes: int, activation: str | None = None) -> Model:
    return gradtoken.wrap(tiny_vit(num_classes=classes), activation=activation)


def inputs_of(model: Model, count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    images = images_for((64, 64), count).clamp(-1, 1)
    classes = torch.arange(count) % len(model.labels)
    tokens = gradtoken.explain(model, images, [[int(c)] for c in classes], method="gae").tokens
    return images, to_pixels(tokens[:, 0], (64, 64)), classes


def half_grey(image: Tensor, relevance: Tensor) -> Tensor:
    changed = image.clone().flatten(1)
    changed[:, relevance.flatten().argsort(descending=True, stable=True)[:2048]] = 0
    return changed.unflatten(1, (64, 64))[None]


def test_ranks_order_by_relevance() -> None:
    maps = torch.tensor([[[0.5, 2.0], [0.5, -1.0]]])
    assert ranks(maps).tolist() == [[1, 0, 2, 3]]


@pytest.mark.parametrize("classes", [1, 4])
def test_perturb_follows_sigmoid_probability(classes: int) -> None:
    model = model_of(classes, "sigmoid")
    images, maps, ids = inputs_of(model)
    result = perturb(
        model, images, maps, ids, None, "positive", fill="grey", fractions=HALF, **NORMALISATION
    )
    logits = model.module(torch.cat([half_grey(i, m) for i, m in zip(images, maps, strict=True)]))
    expected = 1 / (1 + (-logits.detach()[range(3), ids]).exp())
    torch.testing.assert_close(result.probability[:, 1], expected)
    whole = model(images)[range(3), ids]
    same_side = (logits[range(3), ids] > 0) == (whole > 0)
    assert result.hits[:, 1].tolist() == same_side.tolist()
    assert len(set(result.probability[:, 1].tolist())) == 3


def test_perturb_sigmoid_hits_are_labels_above_half() -> None:
    model = model_of(4, "sigmoid")
    images, maps, ids = inputs_of(model)
    labels = torch.tensor([2, 0, 3])
    result = perturb(model, images, maps, ids, labels, "negative", fractions=HALF, **NORMALISATION)
    assert result.hits[:, 0].tolist() == (model(images)[range(3), labels] > 0).tolist()


@pytest.mark.parametrize("metric", [insertion, deletion])
def test_curves_of_one_logit_differ_by_map_and_image(metric) -> None:
    model = model_of(1)
    images, maps, ids = inputs_of(model)
    curves = metric(model, images, maps, ids, steps=4, **NORMALISATION)
    torch.testing.assert_close(
        curves[:, 0 if metric is deletion else -1], model(images)[:, 0].sigmoid()
    )
    other = metric(model, images, -maps, ids, steps=4, **NORMALISATION)
    assert all(a != b for a, b in pairwise(area(curves).tolist()))
    assert (area(curves) - area(other)).abs().min() > 1e-6


def test_curve_metrics_of_one_logit_differ_by_image() -> None:
    model = model_of(1)
    images, maps, ids = inputs_of(model)
    most, least = (
        perturb(model, images, maps, ids, None, d, fill="grey", **NORMALISATION).probability
        for d in ("positive", "negative")
    )
    for metric in (aopc(most), log_odds(most), abpc(least, most)):
        assert len({round(value, 9) for value in metric.tolist()}) == 3


def test_softmax_of_one_logit_is_rejected() -> None:
    model = model_of(1)
    images, maps, ids = inputs_of(model)
    words = "softmax of one logit is 1 for every image"
    with pytest.raises(MethodError, match=words):
        insertion(lambda x: model(x), images, maps, ids, steps=2, **NORMALISATION)
    with pytest.raises(MethodError, match=words):
        perturb(
            model.module, images, maps, ids, None, "positive", activation="softmax", **NORMALISATION
        )
    explicit = insertion(
        lambda x: model(x), images, maps, ids, steps=2, activation="sigmoid", **NORMALISATION
    )
    assert torch.equal(explicit, insertion(model, images, maps, ids, steps=2, **NORMALISATION))
    with pytest.raises(ModelError, match="activation is 'relu'"):
        deletion(model, images, maps, ids, activation="relu", **NORMALISATION)  # type: ignore[arg-type]


def test_activation_none_follows_logit() -> None:
    model = model_of(4, "none")
    images, maps, ids = inputs_of(model)
    result = perturb(model, images, maps, ids, None, "positive", fractions=HALF, **NORMALISATION)
    torch.testing.assert_close(result.probability[:, 0], model(images)[range(3), ids])
    assert result.hits is None
    with pytest.raises(MethodError, match="decide for no class, so there are no hits"):
        result.auc()
    with pytest.raises(MethodError, match="decide for no class, so there are no hits"):
        result.accuracy()
    with pytest.raises(MethodError, match="log-odds are of probabilities"):
        log_odds(torch.tensor([[0.3, -0.2]]))
    curve = insertion(model, images, maps, ids, steps=2, **NORMALISATION)
    torch.testing.assert_close(curve[:, -1], model(images)[range(3), ids])
