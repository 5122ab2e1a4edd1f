"""TAM against its definition written out."""

from __future__ import annotations

import pytest
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.errors import MethodError
from gradtoken.models import Model
from tests.attribution.attention.test_beyond_intuition import integrated
from tests.attribution.compare import assert_equals
from tests.conftest import inputs
from tests.oracle import Written


def by_hand(written: Written, label: int, start: int) -> Tensor:
    blocks, _ = written.forward()
    state = blocks[-1].attention.mean(0)[0]
    for index in range(len(blocks) - 2, start - 1, -1):
        state = state + state @ blocks[index].attention.mean(0)
    return state * integrated(written, label, 3)


@pytest.mark.parametrize(("start", "lowest"), [(None, 1), (0, 0), (3, 3)])
def test_tam_equals_definition(model: Model, start: int | None, lowest: int) -> None:
    assert_equals(model, "tam", lambda w, label: by_hand(w, label, lowest), start=start, steps=3)


def test_tam_in_every_layout(variant: Model) -> None:
    assert_equals(variant, "tam", lambda w, label: by_hand(w, label, 1), steps=3)


def test_tam_rejects_block_that_does_not_exist(model: Model) -> None:
    with pytest.raises(MethodError, match="tam's start is 4, but VisionTransformer has 4 blocks"):
        gradtoken.explain(model, inputs(model), 3, method="tam", start=4)
    with pytest.raises(MethodError, match="tam's start is 'top'; it must be a block's index"):
        make_method("tam", start="top")
