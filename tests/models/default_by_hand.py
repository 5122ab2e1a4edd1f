"""GradToken's default written out on the readout's steps, for one class of the first image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradtoken.errors import NotSupportedError
from gradtoken.targets import OutputTarget, Targets
from gradtoken.trace.gradients import readouts
from gradtoken.trace.readout import Readout
from gradtoken.trace.trace import Trace


def leaky_by_hand(trace: Trace, label: int, rivals: int) -> Tensor:
    """Relevance (N,) before spreading, image 0."""
    logits = trace.logits[0].double()
    order = [k for k in logits.argsort(descending=True).tolist() if k != label][:rivals]
    maps = {c: last_support(trace, c) for c in (label, *order) if rivals}
    weights = {
        k: float(logits.softmax(-1)[k].sqrt()) * max(1 - correlation(maps[label], maps[k]), 0)
        for k in order
    }
    total = sum(weights.values())

    def score(z: Tensor) -> Tensor:
        return z[label] - sum((w / total) * z[k] for k, w in weights.items())

    steps = readouts(trace, targets_of(trace, score))
    relevance = torch.zeros(trace.spatial, dtype=torch.float64)
    for block, place in enumerate([*steps.blocks, steps.tail]):
        weight = 1.0 if block == len(steps.blocks) else ((block + 1) / trace.depth) ** 2
        for step in place:
            relation = step.gradient[0, :, 0] @ step.value[0].mT
            signed, support = (
                tokens_of(step, (step.attention[0].sqrt() * part).sum((0, 1)), trace.spatial)
                for part in (relation, relation.clamp_min(0))
            )
            relevance += weight * (0.7 * signed + 0.3 * (support - support.mean()))
    return relevance


def correlation(first: Tensor, second: Tensor) -> float:
    """Of two maps; 0 if one is constant."""
    if float(first.std()) == 0 or float(second.std()) == 0:
        return 0.0
    return float(torch.corrcoef(torch.stack([first, second]))[0, 1])


def last_support(trace: Trace, label: int) -> Tensor:
    """The supporting evidence (N,) for a class in the steps that the head reads last, image 0."""
    steps = readouts(trace, targets_of(trace, lambda z: z[label]))
    last = [*steps.tail]
    if trace.model.layout.rows and trace.model.anatomy.reads:
        last += steps.blocks[max(trace.model.anatomy.reads)]
    total = torch.zeros(trace.spatial, dtype=torch.float64)
    for step in last:
        support = (step.gradient[0, :, 0] @ step.value[0].mT).clamp_min(0)
        total += tokens_of(step, (step.attention[0].sqrt() * support).sum((0, 1)), trace.spatial)
    return total


def targets_of(trace: Trace, score: Callable[[Tensor], Tensor]) -> Targets:
    return Targets([[OutputTarget(score)] for _ in trace.images])


def tokens_of(step: Readout, relevance: Tensor, spatial: int) -> Tensor:
    """The spatial tokens in reading order."""
    return relevance[-spatial:] if step.order is None else relevance[list(step.order)]


def spread_by_hand(trace: Trace, relevance: Tensor) -> Tensor:
    """Along mutual attention, or to neighbours where not all patches attend to all."""
    mutual = mutual_by_hand(trace)
    if mutual is None:
        mutual = near(trace, 0.05)
    return mutual / mutual.sum(-1, keepdim=True) @ relevance


def near(trace: Trace, reach: float) -> Tensor:
    """exp(-d^2 / 2 s^2) of each pair of patches (N, N)."""
    rows, columns = trace.grid
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    return torch.exp(-(torch.cdist(place, place) ** 2) / (2 * reach**2 * rows * columns))


def mutual_by_hand(trace: Trace) -> Tensor | None:
    """Mutual attention of the lower half of the blocks, and near (N, N); None without."""
    try:
        calls = trace.global_calls()
    except NotSupportedError:
        return None
    positions = list(trace.patch_grid.positions)
    attention = torch.stack(
        [
            call.rows(slice(None))[0].mean(0)[positions][:, positions]
            for call in calls[: (trace.depth + 1) // 2]
        ]
    ).mean(0)
    return torch.minimum(attention, attention.T) * near(trace, 0.15)
