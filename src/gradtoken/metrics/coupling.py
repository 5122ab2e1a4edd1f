"""Semantic coupling: how similar the maps of different classes are."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import TargetError
from gradtoken.explanation.explanation import Explanation


def coupling(explanation: Explanation) -> float:
    """Mean Pearson correlation between the token maps of an image's targets.

    The mean is over all pairs of targets of every image (docs/method.md, "Semantic coupling"). It
    is 1 by construction for maps that do not depend on the class, such as raw attention and
    rollout. For perfect maps of objects that do not overlap it is slightly below 0.

    Args:
        explanation: of one or more images, each with two or more targets.

    Raises:
        TargetError: if fewer than two targets per image were explained, or a map is constant.
    """
    return float(pairwise_correlation(explanation.tokens.flatten(2)).mean())


def pairwise_correlation(
    maps: Float[Tensor, "batch targets patches"],
) -> Float[Tensor, "batch pairs"]:
    """Pearson correlation of each pair of targets' maps, (B, K (K - 1) / 2).

    Args:
        maps: (B, K, N).

    Raises:
        TargetError: fewer than two targets, or a constant map.
    """
    count = maps.shape[1]
    if count < 2:
        raise TargetError("coupling compares maps of different targets; explain at least two.")
    centred = maps.double() - maps.double().mean(-1, keepdim=True)
    norm = centred.norm(dim=-1, keepdim=True)
    if not bool((norm > 0).all()):
        raise TargetError("a map is constant, so its correlation with others is undefined.")
    unit = centred / norm
    rows, columns = torch.triu_indices(count, count, offset=1)
    return (unit[:, rows] * unit[:, columns]).sum(-1).clamp(-1, 1)
