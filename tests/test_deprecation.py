"""Former names of parameters work with a warning."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradtoken.bench import column
from gradtoken.bench.store import Record, Store
from gradtoken.deprecation import renamed_parameters
from gradtoken.metrics import correlation, rank_correlation


@renamed_parameters(one="maps", other="more")
def _pair(maps: object, *, more: object = None) -> Any:
    return maps, more


def test_renamed_parameters_accepts_former_and_present_names() -> None:
    with pytest.warns(DeprecationWarning, match="one= is deprecated; use maps=") as warned:
        assert _pair(one=1, more=2) == (1, 2)
    assert warned[0].filename == __file__
    assert _pair(1, more=2) == _pair(maps=1, more=2) == (1, 2)
    assert list(inspect.signature(_pair).parameters) == ["maps", "more"]


def test_renamed_parameters_rejects_both_names() -> None:
    with pytest.raises(TypeError, match="other= is a former name of more="):
        _pair(1, other=2, more=3)
    with (
        pytest.warns(DeprecationWarning, match="use maps="),
        pytest.raises(TypeError, match="multiple values"),
    ):
        _pair(1, one=2)


@pytest.mark.parametrize("function", [correlation, rank_correlation])
def test_correlations_accept_former_names(function: Any) -> None:
    one, other = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[3.0, 2.0, 0.0]])
    with pytest.warns(DeprecationWarning, match=r"use (other_)?maps="):
        assert float(function(one=one, other=other)) == pytest.approx(-1)


def test_column_accepts_former_name() -> None:
    with pytest.warns(DeprecationWarning, match="use metric="):
        values = column([{"method": "gae", "share": 0.5}], "gae", figure="share")
    assert np.array_equal(values, [0.5])


def test_store_accepts_former_names(tmp_path: Path) -> None:
    store = Store(tmp_path, {})
    with pytest.warns(DeprecationWarning, match="use image="):
        store.add(picture="a", records=[Record("a", "cat", "gae", "share", 0.5)])
    with pytest.warns(DeprecationWarning, match="use image="):
        assert store.done(picture="a")
    with pytest.warns(DeprecationWarning, match="use images="):
        assert store.read(pictures=["a"]).value.tolist() == [0.5]
