"""The generalised gamma rule of layer-wise relevance in linear layers."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_EPSILON = 1e-6
"""Added to the sums that relevance is divided by, with their sign."""


def gamma_linear(
    x: Float[Tensor, "*rows inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None,
    gamma: float,
) -> Float[Tensor, "*rows outputs"]:
    """A linear layer z = W x + b whose backward propagates relevance by the gamma rule.

    Output i gives input j the share c_ij / (sum_j c_ij + d_i) of its relevance. Where z_i > 0, c is
    the contribution w x with (1 + gamma) times what is positive of it, and d is b with (1 + gamma)
    times what is positive of it; where z_i < 0, the same with what is negative. The bias takes
    its share, and an output of 0 gives none.

    Args:
        x: the inputs.
        weight: W.
        bias: b, or None.
        gamma: how much contributions of the output's own sign are favoured.

    Source: Andéol et al., 2021, for inputs of either sign, after Montavon et al., 2019; for Vision
    Transformers Achtibat et al., ICML 2024.
    """
    output: Tensor = _GammaLinear.apply(x, weight, bias, gamma)
    return output


class _GammaLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, gamma: float) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.gamma = gamma
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        above, below = x.clamp_min(0), x.clamp_max(0)
        up = weight + ctx.gamma * weight.clamp_min(0)
        down = weight + ctx.gamma * weight.clamp_max(0)
        z = F.linear(x, weight, bias)
        rising = F.linear(above, up) + F.linear(below, down)
        falling = F.linear(above, down) + F.linear(below, up)
        if bias is not None:
            rising = rising + bias + ctx.gamma * bias.clamp_min(0)
            falling = falling + bias + ctx.gamma * bias.clamp_max(0)
        positive = torch.where(z > 0, relevance / (rising + _EPSILON), 0)
        negative = torch.where(z < 0, relevance / (falling - _EPSILON), 0)
        parts = above * (positive @ up + negative @ down) + below * (
            positive @ down + negative @ up
        )
        return parts, None, None, None
