"""Gradients at nodes of an autograd graph, of one score or of a batch of vectors."""

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
from gradtoken.trace.libra import scoring


def gradients(
    score: Tensor | Sequence[Tensor],
    at: list[Tensor],
    retain_graph: bool = False,
    *,
    vector: Tensor | Sequence[Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """The gradients of a score at some nodes; zeros at a node that the score does not depend on.

    Args:
        score: a scalar, or outputs that `vector` is multiplied with.
        at: the nodes.
        retain_graph: whether the graph is kept for another backward pass.
        vector: what the Jacobian of the outputs is multiplied with, in their shapes.
    """
    grads = torch.autograd.grad(score, at, vector, retain_graph=retain_graph, allow_unused=True)
    return tuple(
        torch.zeros_like(node) if grad is None else grad
        for node, grad in zip(at, grads, strict=True)
    )


def vector_jacobian_products(
    outputs: Sequence[Tensor], at: list[Tensor], vectors: Sequence[Tensor]
) -> list[Tensor]:
    """The vector-Jacobian products of K vectors at some nodes, each (K, *node).

    The vectors of one output are (K, *output); products are summed over outputs. The graph is
    kept.

    All products take one batched backward pass. Where the graph cannot run batched (because of a
    custom function of the model, for example), they run vector by vector.
    """
    if len(vectors[0]) > 1:
        try:
            return list(torch.vmap(partial(_product, outputs, at))(*vectors))
        except RuntimeError as error:
            if "vmap" not in str(error) and "functorch" not in str(error):
                raise
    rows = [_product(outputs, at, *row) for row in zip(*vectors, strict=True)]
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def _product(outputs: Sequence[Tensor], at: list[Tensor], *vectors: Tensor) -> tuple[Tensor, ...]:
    return gradients(outputs, at, True, vector=vectors)


@contextmanager
def gradients_enabled(model: Model) -> Iterator[None]:
    """The model in evaluation mode with gradients on, whatever the caller's mode is."""
    with with_autograd(model), torch.enable_grad():
        yield


def output_gradients(
    logits: Float[Tensor, "batch classes"], targets: Targets, *, libra: bool = False
) -> Float[Tensor, "targets batch classes"]:
    """dy/dz: the gradient of each target's score by the model's output, or LibraGrad's."""
    with torch.inference_mode(False), torch.enable_grad(), scoring(libra=libra):
        outputs = wide(logits.detach())[:, None].repeat(1, targets.count, 1).requires_grad_()
        (grads,) = gradients(targets.scores(outputs).sum(), [outputs])
        return grads.transpose(0, 1)
