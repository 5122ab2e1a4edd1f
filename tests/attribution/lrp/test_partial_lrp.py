"""Partial LRP against layer-wise relevance written out."""

from __future__ import annotations

from torch import Tensor

from gradtoken.models import Model
from tests.attribution.compare import assert_equals
from tests.attribution.lrp.by_hand import attention_relevance
from tests.oracle import Written


def by_hand(written: Written, label: int) -> Tensor:
    relevance, _ = attention_relevance(written, label)
    return relevance[-1].clamp_min(0).mean(0)[0]


def test_partial_lrp_equals_definition(model: Model) -> None:
    assert_equals(model, "partial-lrp", by_hand)
