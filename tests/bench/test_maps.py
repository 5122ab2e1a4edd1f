"""Maps of an image, against `explain`."""

from __future__ import annotations

import torch

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.bench.cases import Case
from gradtoken.bench.maps import Maps, maps_of


def test_maps_equal_explain(demo: gradtoken.Model, case: Case, maps: Maps) -> None:
    expected = gradtoken.explain(demo, case.sample.image, list(case.classes), method="gae").tokens[
        0
    ]
    torch.testing.assert_close(maps.tokens, expected)


def test_maps_contrast_with_targets_only(demo: gradtoken.Model, case: Case) -> None:
    """The absent class that is explained beside them is none of the others."""
    against = make_method("gradtoken", target="others")
    explanation = gradtoken.explain(demo, case.sample.image, list(case.classes), method=against)
    torch.testing.assert_close(Maps.compute(case, against).tokens, explanation.tokens[0])
    joint = maps_of(against, case.trace, [*case.classes, 0 if 0 not in case.classes else 1])
    assert not torch.allclose(joint[:-1], explanation.tokens[0])
