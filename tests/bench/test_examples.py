"""The figure of a run's first images."""

from __future__ import annotations

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.bench.cases import cases
from gradtoken.bench.examples import examples
from tests.bench.toys import Picky, sample
from tests.conftest import tiny_vit


def test_examples_leave_empty_panel_for_failed_method() -> None:
    model = gradtoken.wrap(tiny_vit())
    selected = [case for _, case in cases(model, [sample("a", 0)], whole=False)]
    methods = {"gae": make_method("gae"), "picky": Picky(below=99.0)}
    figure = examples(selected, methods, "a run")
    panels = [len(axis.images) for axis in figure.axes]
    assert panels == [1, 1, 0, 1, 1, 0]
