"""GradToken's option `target`: its default by activation, and that of presets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.conftest import images_for, tiny_vit

PERSON, ELEPHANT = 0, 1


def photograph_and_model() -> tuple[Tensor, Model]:
    """A person beside an elephant, each with a probability of 0.5 or more.

    Relevance of a logit is linear in its row of the head, so the head is solved for: the person's
    map is positive on every patch, most on the left; the elephant's is three times as large.
    """
    image = images_for((64, 64), 1)
    module = tiny_vit(patch_size=16, num_classes=48)
    with torch.no_grad():
        module.head.weight.copy_(torch.eye(48))
        module.head.bias.zero_()
    wrapped = gradtoken.wrap(module)
    basis = gradtoken.explain(wrapped, image, "all", preset="v0.1", target="logit").tokens
    maps = basis[0].flatten(1).double()
    wanted = torch.full((4, 4), 0.2).double()
    wanted[:, :2] = 1
    rows = torch.linalg.lstsq(maps.T, torch.stack([wanted, 3 * wanted.flip(1)]).flatten(1).T)
    head = nn.Linear(48, 3).double()
    with torch.no_grad():
        head.weight.copy_(torch.cat([rows.solution.T, 0.1 * torch.ones(1, 48).double()]))
        head.bias.zero_()
        module.head = nn.Identity()
        read = head(module(image))[0]
        head.bias.copy_(torch.tensor([0.0, 2.0, -4.0]).double() - read)
        module.head = head
    return image, gradtoken.wrap(module, activation="sigmoid")


def positive_share(tokens: Tensor) -> float:
    return float(tokens.clamp_min(0).sum() / tokens.abs().sum())


def test_sigmoid_map_stays_positive_beside_stronger_class() -> None:
    image, model = photograph_and_model()
    explanation = gradtoken.explain(model, image, [PERSON, ELEPHANT])
    assert explanation.probabilities[0].tolist() == pytest.approx(
        [0.5, 1 / (1 + torch.e**-2)], abs=1e-6
    )
    person, elephant = explanation.tokens[0]
    assert positive_share(person) > 0.99
    assert positive_share(elephant) > 0.99
    assert person[:, :2].sum() > 3 * person[:, 2:].sum()
    assert elephant[:, 2:].sum() > 3 * elephant[:, :2].sum()
    against = gradtoken.explain(model, image, PERSON, target="rivals(1)").tokens[0, 0]
    assert positive_share(against) < 0.5


def test_sigmoid_map_ignores_other_logits() -> None:
    image, model = photograph_and_model()
    before = gradtoken.explain(model, image, PERSON).tokens
    with torch.no_grad():
        model.module.head.weight[ELEPHANT] *= 10
        model.module.head.bias[ELEPHANT] += 5
    assert torch.equal(before, gradtoken.explain(model, image, PERSON).tokens)


@pytest.mark.parametrize(
    ("activation", "target"),
    [("softmax", "rivals(5, 0.5)"), ("sigmoid", "logit"), ("none", "logit")],
)
def test_target_auto_by_activation(activation: str, target: str, tmp_path: Path) -> None:
    model, images = gradtoken.wrap(tiny_vit(), activation=activation), images_for((64, 64))
    explanation = gradtoken.explain(model, images, [2, 5], preset="v0.1")
    explicit = gradtoken.explain(model, images, [2, 5], preset="v0.1", target=target)
    assert torch.equal(explanation.tokens, explicit.tokens)
    assert make_method("gradtoken", preset="v0.1").target == "auto"
    explanation[0].save(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["method"]["options"]["target"] == target


def test_target_auto_of_softmax_subtracts_half_of_rivals() -> None:
    """By linearity: the map of the logit minus a tenth of each of the five strongest others'."""
    model, images = gradtoken.wrap(tiny_vit()), images_for((64, 64), 1)
    every = gradtoken.explain(model, images, "all", preset="v0.1", target="logit").tokens[0]
    logits = model.module(images)[0].detach()
    order = [k for k in logits.argsort(descending=True).tolist() if k != 4][:5]
    expected = every[4].double() - 0.5 * every[order].double().mean(0)
    tokens = gradtoken.explain(model, images, 4, preset="v0.1").tokens[0, 0].double()
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-6 * float(every.abs().max()))


@pytest.mark.parametrize(("activation", "rivals"), [("softmax", 12), ("sigmoid", 0), ("none", 0)])
def test_rivals_auto_by_activation(activation: str, rivals: int) -> None:
    model, images = gradtoken.wrap(tiny_vit(), activation=activation), images_for((64, 64))
    explanation = gradtoken.explain(model, images, [2, 5])
    explicit = gradtoken.explain(model, images, [2, 5], rivals=rivals)
    assert torch.equal(explanation.tokens, explicit.tokens)
    assert explanation.about["method"]["options"]["rivals"] == rivals


def test_rivals_of_outputs_without_probability() -> None:
    model, images = gradtoken.wrap(tiny_vit(), activation="none"), images_for((64, 64))
    with pytest.raises(MethodError, match='use rivals=0 or rival_weight="equal"'):
        gradtoken.explain(model, images, 3, rivals=5)
    assert gradtoken.explain(model, images, 3, rivals=5, rival_weight="equal").tokens.any()
