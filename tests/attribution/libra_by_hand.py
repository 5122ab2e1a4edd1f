"""The tests' ViT with LibraGrad's backward pass written out: factors of it are detached."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.oracle import Written


class LibraWritten(Written):
    def norm(self, layer: torch.nn.Module, tokens: Tensor) -> Tensor:
        centred = tokens - tokens.mean(-1, keepdim=True)
        deviation = ((centred**2).mean(-1, keepdim=True) + layer.eps).sqrt().detach()
        return centred / deviation * layer.weight + layer.bias

    def softmax(self, scores: Tensor) -> Tensor:
        return scores.softmax(dim=-1).detach().requires_grad_()

    def through_mlp(self, block: torch.nn.Module, tokens: Tensor) -> Tensor:
        hidden = block.mlp.fc1(self.norm(block.norm2, tokens))
        gate = (1 + torch.erf(hidden / 2**0.5)) / 2
        return tokens + block.ls2(block.mlp.fc2(hidden * gate.detach()))
