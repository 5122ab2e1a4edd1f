"""A ViT with an operation that layer-wise relevance has no rule for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from tests.conftest import tiny_vit


class _Cubed(Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.pow(x, 3)


def cubing_vit() -> Module:
    """A tiny ViT whose second block cubes in the place of its activation."""
    module = tiny_vit()
    module.blocks[1].mlp.act = _Cubed()
    return module
