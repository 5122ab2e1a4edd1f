"""An explanation whose maps have and lack positive evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import gradtoken
from gradtoken import Explanation
from gradtoken.models import Model


def evidence_maps() -> Tensor:
    """A usual map, one hot corner in a negative map, a wholly negative one, and zeros."""
    usual = torch.full((8, 8), -0.1)
    usual[2:5, 2:5] = 1
    corner = torch.full((8, 8), -0.2)
    corner[0, 0] = 1
    return torch.stack([usual, corner, torch.full((8, 8), -0.3), torch.zeros(8, 8)])


@pytest.fixture
def mixed(model: Model, batch: Tensor) -> Explanation:
    """An explanation with the maps of `evidence_maps`, of which only the first has evidence."""
    explanation = gradtoken.explain(model, batch[:1], [1, 2, 3, 4])
    return replace(explanation, tokens=evidence_maps()[None])
