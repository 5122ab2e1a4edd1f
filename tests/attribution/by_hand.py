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
    rectify: str | None = "head"
    slope: float = 0.7
    centre: bool = True
    rivals: int = 12
    rival_weight: str = "overlap"
    spread: str | None = "mutual"
    lower: bool = True
    temperature: float = 0.1
    reach: float | None = 0.15
    channel_weight: str | None = None


def by_hand(
    model: Model, image: Tensor, score: Callable[[Tensor], Tensor], **options: Any
) -> Tensor:
    """Relevance of the spatial tokens (N,) to any score; options as in `Settings`.

    With rectify="head", the signed and the supporting evidence count as `slope` says.
    """
    settings = Settings(**options)
    blocks, gammas = Written(model.module, image).gradients(score, full=settings.full)
    prefix = model.layout.prefix
    if settings.rectify == "head":
        signed = evidence(blocks, gammas, settings, None)
        support = supporting(blocks, gammas, settings, prefix)
        total = settings.slope * signed + (1 - settings.slope) * support
    else:
        total = evidence(blocks, gammas, settings, settings.rectify)
    if settings.rectify == "final":
        total = total.clamp_min(0)
    rows, columns = (side // 8 for side in image.shape[1:])
    mixing = spread_matrix(blocks, prefix, (rows, columns), settings)
    return (mixing @ total[prefix:]).detach()


def class_by_hand(model: Model, image: Tensor, label: int, **options: Any) -> Tensor:
    """Relevance of the spatial tokens (N,) to a class, set against its rivals."""
    weights = rival_weights(model, image, label, Settings(**options))
    return by_hand(
        model,
        image,
        lambda z: z[label] - sum(weight * z[k] for k, weight in weights.items()),
        **options,
    )


def rival_weights(model: Model, image: Tensor, label: int, settings: Settings) -> dict[int, float]:
    """The weight of each rival of a class; they sum to 1."""
    with torch.no_grad():
        logits = model(image[None])[0]
    likely = logits.softmax(-1) if model.activation == "softmax" else logits.sigmoid()
    order = [i for i in logits.argsort(descending=True).tolist() if i != label]
    weights = {}
    for k in order[: settings.rivals]:
        weights[k] = 1.0
        if settings.rival_weight != "equal":
            weights[k] = math.sqrt(float(likely[k]))
        if settings.rival_weight == "overlap":
            maps = [last_support(model, image, c, settings) for c in (label, k)]
            weights[k] *= max(1 - float(torch.corrcoef(torch.stack(maps))[0, 1]), 0)
    return {k: weight / sum(weights.values()) for k, weight in weights.items()}


def last_support(model: Model, image: Tensor, label: int, settings: Settings) -> Tensor:
    """The evidence that any head of the last block has for a class, by spatial token."""
    blocks, gammas = Written(model.module, image).gradients(lambda z: z[label], full=settings.full)
    return block_share(blocks[-1], gammas[-1], settings, "head")[model.layout.prefix :].detach()


def evidence(
    blocks: list[Block], gammas: list[Tensor], settings: Settings, rectify: str | None
) -> Tensor:
    """The weighted sum of the blocks' shares for all tokens."""
    total = torch.zeros(len(blocks[0].entering), dtype=torch.float64)
    for index, (block, gamma) in enumerate(zip(blocks, gammas, strict=True)):
        if settings.layers is None or index in settings.layers:
            share = block_share(block, gamma, settings, rectify)
            total += ((index + 1) / len(blocks)) ** settings.depth * share
    return total


def supporting(
    blocks: list[Block], gammas: list[Tensor], settings: Settings, prefix: int
) -> Tensor:
    """The evidence that any head has for the score, less its mean over the patches."""
    total = evidence(blocks, gammas, settings, "head")
    if settings.centre:
        total[prefix:] -= total[prefix:].mean()
    return total


def block_share(block: Block, gamma: Tensor, settings: Settings, rectify: str | None) -> Tensor:
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
            if rectify == "head":
                relation = relation.clamp_min(0)
            share[token] += block.attention[head, 0, token] ** settings.beta * relation
    return share.clamp_min(0) if rectify == "layer" else share


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
    if settings.spread == "mutual":
        used = blocks[: (len(blocks) + 1) // 2] if settings.lower else blocks
        attention = torch.stack([b.attention[:, prefix:, prefix:].mean(0) for b in used]).mean(0)
        mixing = torch.zeros(count, count, dtype=torch.float64)
        for i in range(count):
            for j in range(count):
                rows, columns = i // grid[1] - j // grid[1], i % grid[1] - j % grid[1]
                near = math.exp(-(rows**2 + columns**2) / (2 * settings.reach**2 * count))
                mixing[i, j] = min(float(attention[i, j]), float(attention[j, i])) * near
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
