"""Semantic coupling against a correlation computed by NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken.models import Model


def test_coupling_equals_numpy(model: Model, batch: Tensor) -> None:
    explanation = gradtoken.explain(model, batch, [1, 2, 3])
    pairs = []
    for image in explanation.tokens.flatten(2).numpy():
        matrix = np.corrcoef(image)
        pairs += [matrix[0, 1], matrix[0, 2], matrix[1, 2]]
    assert gradtoken.coupling(explanation) == pytest.approx(np.mean(pairs), abs=1e-6)


def test_coupling_of_equal_and_opposite_maps(model: Model, batch: Tensor) -> None:
    explanation = gradtoken.explain(model, batch, [1, 2])
    same = replace(explanation, tokens=explanation.tokens[:, :1].repeat(1, 2, 1, 1))
    assert gradtoken.coupling(same) == pytest.approx(1)
    opposite = replace(
        explanation, tokens=torch.cat([same.tokens[:, :1], -3 * same.tokens[:, :1]], 1)
    )
    assert gradtoken.coupling(opposite) == pytest.approx(-1)


def test_coupling_rejects_one_target_and_constant_map(model: Model, batch: Tensor) -> None:
    with pytest.raises(gradtoken.TargetError, match="at least two"):
        gradtoken.coupling(gradtoken.explain(model, batch, 1))
    explanation = gradtoken.explain(model, batch, [1, 2])
    with pytest.raises(gradtoken.TargetError, match="constant"):
        gradtoken.coupling(replace(explanation, tokens=torch.zeros_like(explanation.tokens)))
