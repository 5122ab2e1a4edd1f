"""Gradients at nodes of a graph, of one score or of a batch of vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.models.model import Model
from gradtoken.models.reading.observe import with_autograd
from gradtoken.precision import wide
from gradtoken.targets import Targets


def gradients(
    score: Tensor | Sequence[Tensor],
    at: list[Tensor],
    retain_graph: bool = False,
    *,
    vector: Tensor | Sequence[Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """The gradients of a score at some nodes: zeros where it does not depend on one."""
    found = torch.autograd.grad(score, at, vector, retain_graph=retain_graph, allow_unused=True)
    return tuple(torch.zeros_like(o) if g is None else g for o, g in zip(at, found, strict=True))


def each_gradient(
    outputs: Sequence[Tensor], at: list[Tensor], vectors: Sequence[Tensor]
) -> list[Tensor]:
    """The vector-Jacobian products of many vectors at some nodes, each (K, *node).

    The vectors of one output are (K, *output); products are summed over outputs.

    They take one batched backward pass; what cannot run batched (a custom function of the model's,
    say) runs vector by vector. The graph is kept.
    """
    if len(vectors[0]) > 1:
        try:
            return list(torch.vmap(partial(_product, outputs, at))(*vectors))
        except RuntimeError as error:
            if "vmap" not in str(error) and "functorch" not in str(error):
                raise
    each = [_product(outputs, at, *row) for row in zip(*vectors, strict=True)]
    return [torch.stack(column) for column in zip(*each, strict=True)]


def _product(outputs: Sequence[Tensor], at: list[Tensor], *vectors: Tensor) -> tuple[Tensor, ...]:
    return gradients(outputs, at, True, vector=vectors)


@contextmanager
def gradients_on(model: Model) -> Iterator[None]:
    """The model in evaluation mode with gradients on, whatever the caller's mode is."""
    with with_autograd(model), torch.enable_grad():
        yield


def output_gradients(
    logits: Float[Tensor, "batch classes"], targets: Targets
) -> Float[Tensor, "targets batch classes"]:
    """dy/dz: the gradient of each target's score by the model's output."""
    with torch.inference_mode(False), torch.enable_grad():
        each = wide(logits.detach())[:, None].repeat(1, targets.count, 1).requires_grad_()
        (found,) = gradients(targets.scores(each).sum(), [each])
        return found.transpose(0, 1)
