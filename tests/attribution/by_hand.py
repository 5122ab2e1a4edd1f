"""GradToken written out for one image: token by token and head by head."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradtoken.models import Model
from tests.oracle import Block, Written


@dataclass(frozen=True)
class Settings:
    """GradToken's options, the blocks by index, and whether the gradient is the full one."""

    full: bool = False
    layers: list[int] | None = None
    beta: float = 0.5
    depth: float = 2
    rectify: str | None = None
    spread: str | None = "near"
    temperature: float = 0.1
    reach: float | None = 0.05
    channel_weight: str | None = None


def by_hand(
    model: Model, image: Tensor, score: Callable[[Tensor], Tensor], **options: Any
) -> Tensor:
    """Relevance of the spatial tokens (N,); options as in `Settings`."""
    settings = Settings(**options)
    blocks, gammas = Written(model.module, image).gradients(score, full=settings.full)
    total = torch.zeros(len(blocks[0].entering), dtype=torch.float64)
    for index, (block, gamma) in enumerate(zip(blocks, gammas, strict=True)):
        if settings.layers is None or index in settings.layers:
            share = block_share(block, gamma, settings)
            total += ((index + 1) / len(blocks)) ** settings.depth * share
    if settings.rectify == "final":
        total = total.clamp_min(0)
    prefix = model.layout.prefix
    rows, columns = (side // 8 for side in image.shape[1:])
    mixing = spread_matrix(blocks, prefix, (rows, columns), settings)
    return (mixing @ total[prefix:]).detach()


def block_share(block: Block, gamma: Tensor, settings: Settings) -> Tensor:
    """What one block adds to the relevance of all tokens, before its weight."""
    share = torch.zeros(len(block.entering), dtype=torch.float64)
    for head, direction in enumerate(gamma):
        output = block.output[head, 0]
        if settings.channel_weight == "content":
            direction = direction * output.abs()
        if settings.channel_weight == "product":
            direction = direction * output
        for token in range(len(share)):
            relation = torch.dot(direction, block.value[head, token])
            if settings.rectify == "head":
                relation = relation.clamp_min(0)
            share[token] += block.attention[head, 0, token] ** settings.beta * relation
    return share.clamp_min(0) if settings.rectify == "layer" else share


def spread_matrix(
    blocks: list[Block], prefix: int, grid: tuple[int, int], settings: Settings
) -> Tensor:
    """S of R <- S R (N, N), written out pair by pair."""
    count = math.prod(grid)
    if settings.spread is None:
        return torch.eye(count, dtype=torch.float64)
    if settings.spread == "attention":
        mixing = torch.stack([b.attention[:, prefix:, prefix:].mean(0) for b in blocks]).mean(0)
        return mixing / mixing.sum(-1, keepdim=True)
    logits = torch.zeros(count, count, dtype=torch.float64)
    if settings.spread == "token":
        tokens = blocks[len(blocks) - 2].entering[prefix:]
        tokens = tokens - tokens.mean(0)
        cosine = [torch.cosine_similarity(tokens, token[None], dim=-1) for token in tokens]
        logits += torch.stack(cosine) / settings.temperature
    if settings.reach is not None:
        columns = grid[1]
        for i in range(count):
            for j in range(count):
                squared = (i // columns - j // columns) ** 2 + (i % columns - j % columns) ** 2
                logits[i, j] -= squared / (2 * settings.reach**2 * count)
    return logits.softmax(-1)


def rivals(z: Tensor, label: int, count: int, weight: float = 1) -> Tensor:
    """The logit of a class minus `weight` times the mean of the strongest others."""
    order = [i for i in z.argsort(descending=True).tolist() if i != label]
    return z[label] - weight * z[order[:count]].mean()
