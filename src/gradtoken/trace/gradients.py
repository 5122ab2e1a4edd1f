"""Class-aware gradients at every step of the readout."""

from __future__ import annotations

from gradtoken.targets import Targets
from gradtoken.trace.autograd import gradients_on
from gradtoken.trace.backward import through_model, through_tail
from gradtoken.trace.readout import Readouts
from gradtoken.trace.stream import follow
from gradtoken.trace.trace import Trace

TARGET_ELEMENTS = 1 << 26
"""Gradients that one call of `readouts` should hold; see `targets_at_once`."""


def readouts(trace: Trace, targets: Targets, *, gradient: str = "auto") -> Readouts:
    """Attention, values, output and class-aware gradient at every step of the readout.

    Args:
        trace: a record of the images.
        targets: K targets for each image.
        gradient: "stream" (along the readout alone: its tokens among the others' frozen keys
            and values, then what the head pools or attends to), "full" (backpropagation
            through the whole model), or "auto": "full" where the head only averages tokens of
            known blocks, "stream" otherwise.

    Raises:
        ModelError: if the stream does not lead to the model's own readout.
    """
    if _full(trace, gradient):
        return through_model(trace, targets)
    tail, arriving = through_tail(trace, targets)
    if not arriving:
        return Readouts([], tail)
    with gradients_on(trace.model):
        return Readouts(follow(trace, arriving), tail)


def targets_at_once(trace: Trace, gradient: str) -> int:
    """How many targets one call of `readouts` should get, so that its gradients fit."""
    call = max((c.value.numel() for c in trace.calls), default=0)
    if _full(trace, gradient):
        each = call * (len(trace.calls) + trace.start)
    else:
        heads = max((c.key[..., 0].numel() for c in trace.calls), default=0)
        each = max(len(trace.model.layout.rows), 1) * heads * 4
    return max(1, TARGET_ELEMENTS // max(each, 1))


def _full(trace: Trace, gradient: str) -> bool:
    layout = trace.model.layout
    if gradient == "auto":
        averages = not layout.rows and layout.pool is not None
        gradient = "full" if averages and trace.depth else "stream"
    return gradient == "full" and bool(trace.depth) and trace.model.anatomy.attends
