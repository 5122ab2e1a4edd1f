"""Class-aware gradients at every step of the readout."""

from __future__ import annotations

from gradtoken.targets import Targets
from gradtoken.trace.autograd import gradients_enabled
from gradtoken.trace.backward import backward_through_model, backward_through_tail
from gradtoken.trace.readout import Readouts
from gradtoken.trace.stream import stream_readouts
from gradtoken.trace.trace import Trace

TARGET_ELEMENTS = 1 << 26
"""Elements of gradients that one call of `readouts` may hold; see `targets_per_chunk`."""


def readouts(trace: Trace, targets: Targets, *, gradient: str = "auto") -> Readouts:
    """Attention, values, output and class-aware gradient at every step of the readout.

    Args:
        trace: a record of the images.
        targets: K targets for each image.
        gradient: "stream" (along the readout tokens alone, with the keys and values of all other
            tokens frozen, then through the head's pooling or attention), "full" (backpropagation
            through the whole model), or "auto": "full" where the head only averages tokens of
            known blocks, "stream" otherwise.

    Raises:
        ModelError: if the stream does not reproduce the model's own readout.
    """
    if _is_full(trace, gradient):
        return backward_through_model(trace, targets)
    tail, arriving = backward_through_tail(trace, targets)
    if not arriving:
        return Readouts([], tail)
    with gradients_enabled(trace.model):
        return Readouts(stream_readouts(trace, arriving), tail)


def targets_per_chunk(trace: Trace, gradient: str) -> int:
    """How many targets one call of `readouts` takes, so that its gradients fit into memory."""
    call = max((c.value.numel() for c in trace.calls), default=0)
    if _is_full(trace, gradient):
        elements = call * (len(trace.calls) + trace.start)
    else:
        heads = max((c.key[..., 0].numel() for c in trace.calls), default=0)
        elements = max(len(trace.model.layout.rows), 1) * heads * 4
    return max(1, TARGET_ELEMENTS // max(elements, 1))


def _is_full(trace: Trace, gradient: str) -> bool:
    """Whether the gradient goes through the whole model."""
    layout = trace.model.layout
    if gradient == "auto":
        averages = not layout.rows and layout.pool is not None
        gradient = "full" if averages and trace.depth else "stream"
    return gradient == "full" and bool(trace.depth) and trace.model.anatomy.attends
