"""Layer-wise relevance from the output of a trace's model to its attention or its first tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.differentiated import gradients
from gradtoken.errors import MethodError
from gradtoken.precision import wide
from gradtoken.relevance import Relevance
from gradtoken.tap import WrittenOut
from gradtoken.targets import Targets
from gradtoken.trace import Trace
from gradtoken.watch import Seen, watching

_LOST = 0.05
"""Relevance that may be lost between the output and the first block, of its absolute sum."""


def attention_relevance(trace: Trace, targets: Targets, method: str) -> list[list[Tensor]]:
    """Layer-wise relevance (B, H, N, N) of each block's attention, for each target in turn.

    It starts at the output as dy/dz, which is one at the logit of a class. For models that read
    their class from tokens.

    Raises:
        MethodError: in the name of `method`, if the class is read otherwise, or relevance is lost
            on the way, because the model uses an operation without a rule.
    """
    _check_class_token(trace, method)
    seeds, tap = trace.seeds(targets), Relevance()
    found = []
    with _relevant_forward(trace, tap) as (output, seen):
        at = [*tap.weights, seen.inputs[0]]
        for seed in seeds:
            *blocks, arrived = gradients(output, at, True, vector=seed.to(output.dtype))
            _check_conserved(trace, seed, arrived, method)
            found.append(blocks)
    return found


def token_relevance(
    trace: Trace, targets: Targets, tap: WrittenOut, method: str
) -> Float[Tensor, "batch targets tokens"]:
    """Relevance that a tap's rules bring from dy/dz * z to the tokens entering the first block.

    Raises:
        MethodError: in the name of `method`, if the class is not read from tokens.
    """
    _check_class_token(trace, method)
    seeds = [seed * trace.logits for seed in trace.seeds(targets)]
    with _relevant_forward(trace, tap) as (output, seen):
        found = [
            gradients(output, [seen.inputs[0]], True, vector=seed.to(output.dtype))[0]
            for seed in seeds
        ]
    return torch.stack([wide(relevance).sum(-1) for relevance in found], dim=1)


@contextmanager
def _relevant_forward(trace: Trace, tap: WrittenOut) -> Iterator[tuple[Tensor, Seen]]:
    """The output of a forward with a graph, under a tap whose rules its backward follows."""
    anatomy = trace.model.anatomy
    with trace.differentiating():
        pixels = trace.images.clone().requires_grad_()
        with watching(anatomy, tap, graph="whole", every_block=True) as seen, tap:
            output = anatomy.forward(trace.model.module, pixels)
        yield output, seen


def _check_class_token(trace: Trace, method: str) -> None:
    trace.global_calls(method)
    model = trace.model
    if not model.layout.rows or model.layout.pool is not None or trace.tail_calls:
        raise MethodError(
            f"{method} propagates relevance from a class token, which {model.spec} does not read "
            f"its class from ({model.anatomy.readout}); use gradtoken."
        )


def _check_conserved(trace: Trace, seed: Tensor, arrived: Tensor, method: str) -> None:
    size = wide(seed).abs().sum(-1)
    lost = wide(arrived).sum(dim=(1, 2)) - wide(seed).sum(-1)
    if bool((lost.abs() > _LOST * size).any()):
        share = float((lost.abs() / size).max())
        raise MethodError(
            f"{method} loses {share:.0%} of the relevance on its way through {trace.model.spec}, "
            "which uses operations that have no rule; use gradtoken."
        )
