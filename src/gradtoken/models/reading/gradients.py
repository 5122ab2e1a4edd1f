"""Where the gradient of a score arrives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from gradtoken.precision import wide
from gradtoken.tap.tap import AttentionCall


@contextmanager
def without(nodes: Iterable[Tensor]) -> Iterator[None]:
    """No gradient goes through some nodes of a graph."""
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.register_hook(torch.zeros_like).remove)
        yield


def reaches(score: Tensor, at: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of a score at some nodes; None where it does not depend on one, or by zero."""
    if not score.requires_grad or not at:
        return [None] * len(at)
    found = torch.autograd.grad(score, list(at), retain_graph=True, allow_unused=True)
    return [None if grad is None or not bool(grad.any()) else wide(grad) for grad in found]


def outputs_of(calls: Iterable[AttentionCall]) -> list[Tensor]:
    """What attention calls made, where that has a graph."""
    return [call.output for call in calls if call.output is not None]


def projected(tensor: Tensor) -> Tensor:
    """A random projection, which depends on all that the tensor depends on: sums may cancel."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
    return (tensor * drawn.to(tensor)).sum()


def _outside(found: Sequence[Tensor | None], rows: Sequence[int]) -> float:
    """The size of some gradients at other tokens than some rows."""
    outside = []
    for grad in found:
        if grad is not None:
            grad = grad.clone()
            grad[:, list(rows)] = 0
            outside.append(grad)
    return _norm(outside)


def _norm(found: Sequence[Tensor | None]) -> float:
    return float(sum(float(grad.norm()) ** 2 for grad in found if grad is not None)) ** 0.5


NEGLIGIBLE = 1e-4
"""Of the output's gradient, the share that may lie where the reading has none."""
