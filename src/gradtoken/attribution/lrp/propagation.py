"""Layer-wise relevance from the output of a trace's model to its attention or its first tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.lrp.rules import Relevance
from gradtoken.attribution.widened import widening
from gradtoken.errors import NotSupportedError
from gradtoken.tap.hooks import BlockRecord, block_hooks
from gradtoken.tap.in_place import OutOfPlace
from gradtoken.tap.recorder import EagerAttention
from gradtoken.targets import Targets
from gradtoken.trace.autograd import gradients, gradients_enabled, output_gradients
from gradtoken.trace.trace import Trace

_LOST = 0.05
"""Relevance that may be lost between the output and the first block, of its absolute sum."""


def attention_relevance(trace: Trace, targets: Targets) -> list[list[Tensor]]:
    """Layer-wise relevance (B, H, N, N) of each block's attention, one list per target.

    It starts at the output as dy/dz, which is one at the logit of a class.

    Raises:
        NotSupportedError: if the class is not read from class tokens, relevance is lost because the
            model uses an operation without a rule, or the device has no float64.
    """
    _check_class_token(trace)
    tap = Relevance(copies=trace.model.writes_in_place)
    results = []
    with _relevant_forward(trace, tap) as (output, block_record):
        at = [*tap.weights, block_record.inputs[0]]
        for seed in output_gradients(output, targets):
            *blocks, arrived = gradients(output, at, True, vector=seed)
            _check_conserved(trace, seed, arrived)
            results.append(blocks)
    return results


def token_relevance(
    trace: Trace, targets: Targets, tap: EagerAttention
) -> Float[Tensor, "batch targets tokens"]:
    """Relevance of the tokens entering the first block, by a tap's rules, from dy/dz * z.

    Raises:
        NotSupportedError: if the class is not read from class tokens, or the device has no
            float64.
    """
    _check_class_token(trace)
    with _relevant_forward(trace, tap) as (output, block_record):
        results = [
            gradients(output, [block_record.inputs[0]], True, vector=seed * output.detach())[0]
            for seed in output_gradients(output, targets)
        ]
    return torch.stack([relevance.sum(-1) for relevance in results], dim=1)


@contextmanager
def _relevant_forward(trace: Trace, tap: EagerAttention) -> Iterator[tuple[Tensor, BlockRecord]]:
    """A forward with a graph, under a tap that sets the rules of its backward pass.

    Yields the output and the blocks' record. Computed in float64, whatever the model's type:
    relevance is divided by sums of the residual stream, which cross zero, so rounding in float32
    would be visible in a map.
    """
    model = trace.model
    with gradients_enabled(trace.model), widening(model, torch.float64) as widened:
        pixels = trace.images.double().requires_grad_()
        beside = OutOfPlace() if tap.copies else nullcontext()
        watch = block_hooks(model.anatomy, tap, graph="whole", every_block=True)
        with watch as block_record, tap, beside, widened:
            output = model.run(pixels)
        yield output, block_record


def _check_class_token(trace: Trace) -> None:
    trace.global_calls()
    model = trace.model
    if not model.layout.rows or model.layout.pool is not None or trace.tail_calls:
        raise NotSupportedError(
            f"propagates relevance from a class token, which {model.spec} does not read "
            f"its class from ({model.anatomy.readout}); use gradtoken."
        )


def _check_conserved(trace: Trace, seed: Tensor, arrived: Tensor) -> None:
    size = seed.abs().sum(-1)
    lost = arrived.sum(dim=(1, 2)) - seed.sum(-1)
    if bool((lost.abs() > _LOST * size).any()):
        share = float((lost.abs() / size).max())
        raise NotSupportedError(
            f"loses {share:.0%} of the relevance on its way through {trace.model.spec}, "
            "which uses operations that have no rule; use gradtoken."
        )
