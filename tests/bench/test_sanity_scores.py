"""Sanity checks of a case, against explanations of models that are changed by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from scipy.stats import spearmanr

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.bench.cases import Case, cases
from gradtoken.bench.maps import Maps
from gradtoken.bench.scores import GROUPS
from tests.bench.toys import Fixed, sample
from tests.conftest import tiny_vit


@pytest.fixture(scope="module")
def case() -> Case:
    ((_, case),) = cases(gradtoken.wrap(tiny_vit()), [sample("a", 0)], whole=False)
    return case


def test_randomised_is_mean_over_stages(case: Case) -> None:
    method = make_method("gae")
    values = GROUPS["sanity"](Maps.compute(case, method))
    name = case.names[case.leading]
    stages = ["head", *(f"block {i}" for i in (3, 2, 1, 0)), "embedding"]
    assert list(values) == ["randomised", *(f"randomised@{stage}" for stage in stages)]
    of_stages = [values[f"randomised@{stage}"][name] for stage in stages]
    assert values["randomised"] == {name: pytest.approx(sum(of_stages) / 6)}

    module = copy.deepcopy(case.trace.model.module)
    generator = torch.Generator().manual_seed(0)
    head = [*module.norm.parameters(), *module.fc_norm.parameters(), *module.head.parameters()]
    order = [p for p in module.parameters() if any(p is h for h in head)]
    with torch.no_grad():
        for p in order:
            p.copy_(p.mean() + p.std() * torch.randn(p.shape, generator=generator).to(p))
    c = case.classes[case.leading]
    before, after = (
        gradtoken.explain(gradtoken.wrap(m), case.pixels, c, method=method).tokens.flatten()
        for m in (case.trace.model.module, module)
    )
    assert of_stages[0] == pytest.approx(spearmanr(before, after).statistic)


def test_a_map_of_nothing_stays_under_randomisation(case: Case) -> None:
    maps = Maps.compute(case, Fixed(at=5))
    (value,) = GROUPS["sanity"](maps)["randomised"].values()
    assert value == pytest.approx(1)
    assert GROUPS["input-shift"](maps) == {"input_shift": {case.names[case.leading]: 0.0}}


def test_input_shift_tells_methods_that_multiply_with_the_input(case: Case) -> None:
    values = {}
    for name in ("gae", "input-x-gradient"):
        values[name] = GROUPS["input-shift"](Maps.compute(case, make_method(name)))["input_shift"]
    leading = case.names[case.leading]
    assert values["gae"][leading] < 1e-6
    assert values["input-x-gradient"][leading] > 0.05


def test_input_shift_of_models_that_see_it_is_left_out() -> None:
    model = gradtoken.wrap(tiny_vit())
    ((_, case),) = cases(model, [sample("a", 0)], whole=False)
    maps = Maps.compute(case, Fixed())
    model.module.patch_embed.proj.padding = (1, 1)
    assert GROUPS["input-shift"](maps) == {}
