"""Groups that change the image, against the metrics they are made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.bench.cases import Case, cases
from gradtoken.bench.maps import Maps, maps_of
from gradtoken.bench.scores import GROUPS
from gradtoken.errors import MethodError
from gradtoken.metrics.f_fidelity import f_fidelity
from gradtoken.metrics.road import road
from gradtoken.metrics.saco import saco
from gradtoken.models import Model
from gradtoken.trace.record import record
from tests.bench.toys import sample
from tests.conftest import tiny_vit


@pytest.fixture(scope="module")
def tuned() -> Model:
    return gradtoken.wrap(tiny_vit(seed=1))


@pytest.fixture(scope="module")
def case(tuned: Model) -> Case:
    """An image with two objects, and another model of the same classes as the fine-tuned one."""
    model = gradtoken.wrap(tiny_vit())
    both = {"idsds": tuned, "f-fidelity": tuned}
    ((_, case),) = cases(model, [sample("a", 0)], whole=False)
    return replace(case, tuned=both)


@pytest.fixture(scope="module")
def maps(case: Case) -> Maps:
    return Maps.compute(case, make_method("cdam"))


def leading(case: Case) -> int:
    return int(case.trace.logits[0, list(case.classes)].argmax())


def inputs(maps: Maps) -> dict:
    case, k = maps.case, leading(maps.case)
    return {
        "images": case.pixels,
        "maps": maps.pixels[k][None],
        "classes": torch.tensor([case.classes[k]]),
    }


def normalisation(case: Case) -> dict:
    preprocess = case.trace.model.preprocess
    return {"mean": preprocess.mean, "std": preprocess.std}


def test_relevance_is_of_each_object(case: Case, maps: Maps) -> None:
    values = GROUPS["relevance"](maps)
    for k, name in enumerate(case.names):
        pixels, mask = maps.pixels[k].double(), case.masks[k]
        positive = pixels.clamp_min(0)
        mass = float((positive * mask).sum() / positive.sum())
        assert values["mass_accuracy"][name] == pytest.approx(mass)
        best = pixels.flatten().topk(int(mask.sum())).indices
        inside = float(mask.flatten()[best].double().mean())
        assert values["rank_accuracy"][name] == pytest.approx(inside)


def test_relevance_needs_masks(case: Case) -> None:
    ((_, bare),) = cases(
        case.trace.model, [sample("a", 0, names=(), masks=None, label=3)], whole=False
    )
    assert GROUPS["relevance"](Maps.compute(bare, make_method("cdam"))) == {}


def test_saco_road_and_f_fidelity_are_of_leading_class(
    case: Case, maps: Maps, tuned: Model
) -> None:
    model, name = case.trace.model, case.names[leading(case)]
    expected = saco(model, **inputs(maps), **normalisation(case))
    assert GROUPS["saco"](maps) == {"saco": {name: float(expected)}}
    values = GROUPS["road"](maps)
    for order in ("morf", "lerf"):
        result = road(model, **inputs(maps), order=order, std=model.preprocess.std)
        assert values[f"road_{order}"] == {name: float(result.probability[0, 1:].mean())}
        assert values[f"road_{order}@0.3"] == {name: float(result.top[0, 3])}
    fidelity = f_fidelity(tuned, **inputs(maps), samples=10)
    values = GROUPS["f-fidelity"](maps)
    assert values["f_fidelity_plus"] == {name: float(fidelity.plus.mean())}
    assert values["f_fidelity_minus"] == {name: float(fidelity.minus.mean())}


@pytest.mark.parametrize("group", ["single-deletion", "idsds"])
def test_single_deletion_and_idsds_are_of_each_class(
    case: Case, maps: Maps, tuned: Model, group: str
) -> None:
    """IDSDS takes maps and drops from the fine-tuned model."""
    model = tuned if group == "idsds" else case.trace.model
    tokens = maps_of(maps.method, record(model, case.pixels), case.classes)
    values = GROUPS[group](maps)[group.replace("-", "_")]
    before = model(case.pixels)[0]
    for k, name in enumerate(case.names):
        pixels = torch.nn.functional.interpolate(tokens[None, k : k + 1], (64, 64), mode="bilinear")
        sums, falls = [], []
        for row in range(0, 64, 16):
            for column in range(0, 64, 16):
                part = (..., slice(row, row + 16), slice(column, column + 16))
                changed = case.pixels.clone()
                changed[part] = 0
                sums.append(float(pixels[part].double().sum()))
                falls.append(float((before - model(changed)[0])[case.classes[k]]))
        assert values[name] == pytest.approx(spearmanr(sums, falls).statistic, abs=1e-6)


def test_max_sensitivity_is_of_each_class(case: Case, maps: Maps) -> None:
    values = GROUPS["max-sensitivity"](maps)["max_sensitivity"]
    generator = torch.Generator().manual_seed(0)
    largest = np.zeros(2)
    for _ in range(10):
        drawn = torch.rand((2, 3, 64, 64), generator=generator)[:1]
        moved = case.pixels + 0.02 * (2 * drawn - 1)
        after = maps_of(maps.method, record(case.trace.model, moved), case.classes).flatten(1)
        change = (after.double() - maps.flat.double()).norm(dim=1) / maps.flat.double().norm(dim=1)
        largest = np.maximum(largest, change.numpy())
    assert [values[name] for name in case.names] == pytest.approx(largest.tolist(), rel=1e-4)


def test_groups_without_their_model_fail(case: Case, maps: Maps) -> None:
    bare = Maps.compute(replace(case, tuned={}), maps.method)
    for group in ("idsds", "f-fidelity"):
        with pytest.raises(MethodError, match=f"{group} needs a fine-tuned model, and none was"):
            GROUPS[group](bare)
