"""Gradients of a score at nodes of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from gradtoken.precision import wide
from gradtoken.tap.attention_call import AttentionCall


@contextmanager
def gradients_blocked(nodes: Iterable[Tensor]) -> Iterator[None]:
    """Blocks gradients at some nodes of a graph, inside the `with` block."""
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.register_hook(torch.zeros_like).remove)
        yield


def gradients_at(score: Tensor, at: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of a score at some nodes; None where it does not depend on one, or by zero."""
    if not score.requires_grad or not at:
        return [None] * len(at)
    grads = torch.autograd.grad(score, list(at), retain_graph=True, allow_unused=True)
    return [None if grad is None or not bool(grad.any()) else wide(grad) for grad in grads]


def outputs_of(calls: Iterable[AttentionCall]) -> list[Tensor]:
    """The outputs of attention calls, where they have a graph."""
    return [call.output for call in calls if call.output is not None]


def random_projection(tensor: Tensor) -> Tensor:
    """A random projection, which depends on all that the tensor depends on: sums may cancel."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
    return (tensor * drawn.to(tensor)).sum()


def norm_outside(grads: Sequence[Tensor | None], rows: Sequence[int]) -> float:
    """The norm of gradients of tokens, without those at some rows."""
    outside = []
    for grad in grads:
        if grad is not None:
            rest = grad.clone()
            rest[:, list(rows)] = 0
            outside.append(rest)
    return norm(outside)


def norm(grads: Sequence[Tensor | None]) -> float:
    """The norm of all gradients together."""
    return float(sum(float(grad.norm()) ** 2 for grad in grads if grad is not None)) ** 0.5


NEGLIGIBLE = 1e-4
"""The share of the output's gradient that may lie where the reading says there is none."""
