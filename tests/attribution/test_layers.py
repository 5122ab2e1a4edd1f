"""Selecting blocks of a model."""

from __future__ import annotations

import numpy as np
import pytest

from gradtoken.attribution import make_method
from gradtoken.attribution.layers import select_layers
from gradtoken.errors import MethodError


def test_as_index_list_takes_ranges_arrays_and_tuples() -> None:
    for layers in (range(2), np.array([0, 1]), (0, 1)):
        assert make_method("gradtoken", layers=layers).options()["layers"] == [0, 1]


@pytest.mark.parametrize("layers", [0, 5, -1, [], [4], [-5], "most", True, ["0"]])
def test_select_layers_rejects_blocks_that_do_not_exist(layers: object) -> None:
    with pytest.raises(MethodError, match="does not fit a model of 4 blocks"):
        select_layers(layers, 4)
