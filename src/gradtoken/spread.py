"""Spreading relevance over patches: spatial tokens are related to one another too."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradtoken.tap import AttentionCall, full_precision, wide

Relevance = Float[Tensor, "batch targets patches"]


def spread_by_tokens(
    relevance: Relevance, tokens: Float[Tensor, "batch patches dim"], temperature: float
) -> Relevance:
    """R <- S R with S_ij = softmax_j(cos(t_i - mean t, t_j - mean t) / temperature).

    Written as one attention call with a channel per target, so no N x N matrix is kept.
    """
    centred = wide(tokens)
    unit = F.normalize(centred - centred.mean(dim=1, keepdim=True), dim=-1)[:, None]
    value = relevance.transpose(1, 2)[:, None].to(unit.dtype)
    with full_precision(unit):
        spread = F.scaled_dot_product_attention(unit, unit, value, scale=1 / temperature)
    return spread[:, 0].transpose(1, 2)


def spread_by_attention(relevance: Relevance, calls: list[AttentionCall], prefix: int) -> Relevance:
    """R <- A R, A being the patches' own attention, mean over heads and blocks, rows sum to 1."""
    affinity = torch.stack(
        [call.rows(slice(prefix, None))[..., prefix:].mean(dim=1) for call in calls]
    ).mean(dim=0)
    affinity = affinity / affinity.sum(-1, keepdim=True)
    return (affinity.to(relevance.dtype) @ relevance.transpose(1, 2)).transpose(1, 2)
