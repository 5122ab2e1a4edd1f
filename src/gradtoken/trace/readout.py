"""The readout's attention steps: weights, values, output and class-aware gradient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.errors import ModelError
from gradtoken.models.model import Model
from gradtoken.precision import wide
from gradtoken.tap.attention_call import AttentionCall


@dataclass(frozen=True)
class Readout:
    """One attention step of the readout, with each target's gradient by its output.

    The readout has `rows`: one for a class token, two with a distillation token, one per pooled
    token in the blocks of a model that averages them. An average is an attention step too, with
    one head, one row of equal weights, and the averaged tokens as values.
    """

    attention: Float[Tensor, "batch heads rows tokens"]
    value: Float[Tensor, "batch heads tokens width"]
    output: Float[Tensor, "batch heads rows width"]
    gradient: Float[Tensor, "batch heads targets rows width"]
    """The class-aware gradient: that of each target's score by `output`."""
    order: tuple[int, ...] | None = None
    """Positions of the spatial tokens among the step's tokens; None for the last ones."""


@dataclass(frozen=True)
class Readouts:
    """The readout's steps: those of each block, and those after the last one (pools, class
    attention).
    """

    blocks: list[list[Readout]]
    tail: list[Readout]


def attention_readout(
    call: AttentionCall,
    rows: slice | list[int],
    gradients: Iterable[Tensor],
    order: tuple[int, ...] | None,
) -> Readout:
    """An attention call as a step, with each target's gradient (B, H, queries, d) by its output."""
    assert call.output is not None
    with torch.no_grad():
        return Readout(
            call.rows(rows).detach(),
            wide(call.value.detach()),
            wide(call.output.detach()[:, :, rows]),
            wide(torch.stack([grad[:, :, rows] for grad in gradients], dim=2)),
            order,
        )


def average_readout(
    model: Model,
    tokens: Tensor,
    gradients: Iterable[Tensor],
    rows: list[int],
    order: tuple[int, ...] | None,
) -> Readout:
    """The average of tokens (B, N, D) as an attention step with equal weights.

    Args:
        model: the model whose head averages tokens.
        tokens: all tokens that the head takes.
        gradients: each target's gradient by these tokens, in the model's own shape.
        rows: positions of the tokens that are averaged.
        order: see `Readout`.

    Raises:
        ModelError: if the tokens do not count equally (under a maximum, for example).
    """
    pool = model.anatomy.pool
    assert pool is not None
    tokens = wide(tokens.detach())
    weight = tokens.new_zeros(len(tokens), 1, 1, tokens.shape[1])
    weight[..., rows] = 1 / len(rows)
    grads = torch.stack([wide(pool.flat(g))[:, rows] for g in gradients], dim=1)
    _check_average(grads, model.spec)
    return Readout(
        weight,
        tokens[:, None],
        (weight[:, 0] @ tokens)[:, None],
        grads.sum(dim=2)[:, None, :, None],
        order,
    )


def _check_average(gradients: Float[Tensor, "batch targets tokens dim"], spec: str) -> None:
    size = gradients.abs().amax(dim=(2, 3), keepdim=True)
    allowed = 1e-2 if size.dtype == torch.float32 else 1e-6
    if bool(((gradients - gradients[:, :, :1]).abs() > allowed * size).any()):
        raise ModelError(
            f"the head of {spec} does not average the tokens it pools, so no single readout stands "
            "for them; use a model with a class token, average or attention pooling."
        )
