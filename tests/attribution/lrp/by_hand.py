"""Layer-wise relevance of a timm ViT written out, layer by layer, for one image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.oracle import Written


def divided(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b == 0, torch.zeros_like(b), a / b)


def linear(relevance: Tensor, x: Tensor, layer: torch.nn.Linear) -> Tensor:
    """R_j = sum_i (x_j w_ij)+ / sum_j' (x_j' w_ij')+ R_i."""
    contributions = (x[:, None, :] * layer.weight[None]).clamp_min(0)
    return (divided(relevance, contributions.sum(-1))[..., None] * contributions).sum(1)


def added(relevance: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Proportional to the summands, then rescaled by their absolute totals."""
    parts = [divided(a * relevance, a + b), divided(b * relevance, a + b)]
    whole = parts[0].sum().abs() + parts[1].sum().abs()
    return tuple(p * (p.sum().abs() / whole) * relevance.sum() / p.sum() for p in parts)


def product(relevance: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Half to each factor, by what each product contributes: (n, k) @ (k, m), term by term."""
    terms = a[:, :, None] * b[None]
    shares = divided(relevance, a @ b)[:, None, :] * terms / 2
    return shares.sum(2), shares.sum(0)


def attention_relevance(written: Written, label: int) -> tuple[list[Tensor], Tensor]:
    """R_A (H, N, N) of each block, and the relevance that arrives at the first block's tokens."""
    module = written.module
    blocks, _ = written.forward()
    last = module.norm(blocks[-1].leaving)
    relevance = torch.zeros_like(blocks[-1].leaving)
    seed = torch.zeros(1, module.head.out_features, dtype=relevance.dtype)
    seed[0, label] = 1
    relevance[:1] = linear(seed, last[:1], module.head)
    results = []
    for block, layer in zip(reversed(blocks), reversed(module.blocks), strict=True):
        mlp = layer.mlp
        hidden = mlp.fc1(layer.norm2(block.middle))
        relevance, into_mlp = added(relevance, block.middle, block.leaving - block.middle)
        into_mlp = linear(into_mlp, F.gelu(hidden), mlp.fc2)
        into_mlp = linear(into_mlp, layer.norm2(block.middle), mlp.fc1)
        relevance = relevance + into_mlp
        joined = block.output.transpose(0, 1).flatten(1)
        relevance, into = added(relevance, block.entering, block.middle - block.entering)
        into = linear(into, joined, layer.attn.proj)
        heads = into.unflatten(1, block.output.shape[::2]).transpose(0, 1)
        q, k, v = written.heads(layer, block.normed)
        parts = []
        matrices = []
        for head, share in enumerate(heads):
            matrix, values = product(share, block.attention[head], v[head])
            queries, keys = product(matrix, q[head], k[head].T)
            matrices.append(matrix)
            parts.append((queries, keys.T, values))
        mixed = torch.cat(
            [torch.stack(column, dim=1).flatten(1) for column in zip(*parts, strict=True)], dim=1
        )
        relevance = relevance + linear(mixed, block.normed, layer.attn.qkv)
        results.append(torch.stack(matrices))
    return list(reversed(results)), relevance
