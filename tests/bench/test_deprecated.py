"""Former names of the benchmark still work, with a warning."""

from __future__ import annotations

import pytest

import gradtoken.bench
from gradtoken.bench.run import Outcome


def test_figures_is_deprecated() -> None:
    with pytest.warns(DeprecationWarning, match="use METRICS"):
        assert gradtoken.bench.FIGURES == gradtoken.bench.METRICS


@pytest.mark.parametrize(("former", "name"), [("pictures", "images"), ("refused", "unsupported")])
def test_outcome_attributes_are_deprecated(former: str, name: str) -> None:
    outcome = Outcome(images=["a"], unsupported={"rise": "too slow"})
    with pytest.warns(DeprecationWarning, match=f"use Outcome.{name}"):
        assert getattr(outcome, former) == getattr(outcome, name)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'NUMBERS'"):
        gradtoken.bench.NUMBERS  # noqa: B018
