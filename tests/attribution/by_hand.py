"""GradToken written out for one image: token by token and head by head."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradtoken.models import Model
from tests.oracle import Written


def by_hand(
    model: Model,
    image: Tensor,
    score,
    *,
    full: bool = False,
    layers: list[int] | None = None,
    beta: float = 0.5,
    depth: float = 2,
    rectify: str | None = None,
    spread: str | None = "near",
    temperature: float = 0.1,
    reach: float | None = 0.05,
    channel_weight: str | None = None,
) -> Tensor:
    """Relevance of the spatial tokens (N,), token by token and head by head."""
    prefix = model.layout.prefix
    blocks, gammas = Written(model.module, image).gradients(score, full=full)
    total = torch.zeros(len(blocks[0].entering), dtype=torch.float64)
    for index, (block, gamma) in enumerate(zip(blocks, gammas, strict=True)):
        if layers is not None and index not in layers:
            continue
        share = torch.zeros_like(total)
        for head, direction in enumerate(gamma):
            output = block.output[head, 0]
            if channel_weight == "content":
                direction = direction * output.abs()
            if channel_weight == "product":
                direction = direction * output
            for token in range(len(total)):
                relation = torch.dot(direction, block.value[head, token])
                if rectify == "head":
                    relation = relation.clamp_min(0)
                share[token] += block.attention[head, 0, token] ** beta * relation
        weight = ((index + 1) / len(blocks)) ** depth
        total += weight * (share.clamp_min(0) if rectify == "layer" else share)
    if rectify == "final":
        total = total.clamp_min(0)
    relevance = total[prefix:]
    rows, columns = (side // 8 for side in image.shape[1:])
    if spread == "near":
        weights = torch.zeros(rows * columns, rows * columns, dtype=torch.float64)
        for i in range(rows * columns):
            for j in range(rows * columns):
                squared = (i // columns - j // columns) ** 2 + (i % columns - j % columns) ** 2
                weights[i, j] = math.exp(-squared / (2 * reach**2 * rows * columns))
        relevance = (weights / weights.sum(-1, keepdim=True)) @ relevance
    if spread == "token":
        tokens = blocks[len(blocks) - 2].entering[prefix:]
        tokens = tokens - tokens.mean(0)
        cosine = torch.stack(
            [torch.cosine_similarity(tokens, token[None], dim=-1) for token in tokens]
        )
        logits = cosine / temperature
        if reach is not None:
            for i in range(rows * columns):
                for j in range(rows * columns):
                    squared = (i // columns - j // columns) ** 2 + (i % columns - j % columns) ** 2
                    logits[i, j] -= squared / (2 * reach**2 * rows * columns)
        relevance = logits.softmax(-1) @ relevance
    if spread == "attention":
        mixing = torch.stack([b.attention[:, prefix:, prefix:].mean(0) for b in blocks]).mean(0)
        relevance = (mixing / mixing.sum(-1, keepdim=True)) @ relevance
    return relevance.detach()


def rivals(z: Tensor, label: int, count: int, weight: float = 1) -> Tensor:
    order = [i for i in z.argsort(descending=True).tolist() if i != label]
    return z[label] - weight * z[order[:count]].mean()
