"""The bundled model, a scene as a case, and one method's maps of it."""

from __future__ import annotations

import pytest

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.bench.cases import Case, cases
from gradtoken.bench.maps import Maps
from gradtoken.datasets import SceneSamples


@pytest.fixture(scope="module")
def demo() -> gradtoken.Model:
    return gradtoken.load("demo", device="cpu")


@pytest.fixture(scope="module")
def case(demo: gradtoken.Model) -> Case:
    return next(case for _, case in cases(demo, SceneSamples()))


@pytest.fixture(scope="module")
def maps(case: Case) -> Maps:
    return Maps.compute(case, make_method("gae"))
