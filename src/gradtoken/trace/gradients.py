"""Class-aware gradients at every step of the readout."""

from __future__ import annotations

from gradtoken.errors import ModelError, NotSupportedError
from gradtoken.tap.frozen_context import Stream
from gradtoken.targets import Targets
from gradtoken.trace.autograd import gradients_enabled, output_gradients
from gradtoken.trace.backward import Seeds, backward_through_model, backward_through_tail
from gradtoken.trace.readout import Readout, Readouts
from gradtoken.trace.stream import stream_readouts, verified_stream
from gradtoken.trace.trace import Trace

TARGET_ELEMENTS = 1 << 26
"""Elements of gradients that one call of `readouts` may hold; see `targets_per_chunk`."""


class ClassGradients:
    """Class-aware gradients at the readout's steps, for any number of targets in turn.

    Args:
        trace: a record of the images.
        gradient: "stream" (along the readout tokens alone, with the keys and values of all other
            tokens frozen, then through the head's pooling or attention), "full" (backpropagation
            through the whole model), or "auto": "full" where the head only averages tokens of
            known blocks, "stream" otherwise.
        libra: whether the gradients are LibraGrad's, for "full".

    Raises:
        NotSupportedError: if LibraGrad's gradients are requested along the stream.
    """

    def __init__(self, trace: Trace, gradient: str = "auto", *, libra: bool = False) -> None:
        self.trace = trace
        self._full = _is_full(trace, gradient)
        self._libra = libra
        if libra and not self._full:
            raise NotSupportedError(
                "with libra=True needs a backward pass through blocks that attend from token to "
                f"token, and {trace.model.spec} is followed after its last block only, or along "
                "the readout's own stream; use libra=False."
            )
        self._stream: Stream | None = None

    def readouts(self, seeds: Seeds) -> Readouts:
        """Attention, values, output and class-aware gradient at every step of the readout.

        Args:
            seeds: the gradient of each target's score by the model's output, (T, B, C).

        Raises:
            ModelError: if the stream does not reproduce the model's own readout.
        """
        if self._full:
            return backward_through_model(self.trace, seeds, libra=self._libra)
        return self._along_stream(seeds, last=False)

    def last_steps(self, seeds: Seeds) -> list[Readout]:
        """The steps after the last block, and those of the last block that the head reads.

        There the gradient along the stream is that through the whole model.

        Args:
            seeds: as for `readouts`.
        """
        rows = self.trace.model.layout.rows
        if self._libra or not self._follows_stream():
            steps = backward_through_model(self.trace, seeds, libra=self._libra)
            blocks = steps.blocks[max(self.trace.model.anatomy.reads) :] if rows else []
        else:
            steps = self._along_stream(seeds, last=True)
            blocks = steps.blocks
        return [*steps.tail, *(step for block in blocks for step in block)]

    def _follows_stream(self) -> bool:
        """Whether the readout's tokens, if it has any, can be followed alone."""
        if not self.trace.model.layout.rows:
            return True
        try:
            self._stream_of_readout()
        except ModelError:
            return False
        return True

    def _stream_of_readout(self) -> Stream:
        if self._stream is None:
            with gradients_enabled(self.trace.model):
                self._stream = verified_stream(self.trace)
        return self._stream

    def _along_stream(self, seeds: Seeds, *, last: bool) -> Readouts:
        tail, arriving = backward_through_tail(self.trace, seeds)
        if not arriving:
            return Readouts([], tail)
        stream = self._stream_of_readout()
        with gradients_enabled(self.trace.model):
            return Readouts(stream_readouts(self.trace, stream, arriving, last=last), tail)


def readouts(
    trace: Trace, targets: Targets, *, gradient: str = "auto", libra: bool = False
) -> Readouts:
    """Attention, values, output and class-aware gradient at every step of the readout.

    Args:
        trace: a record of the images.
        targets: K targets for each image.
        gradient: see `ClassGradients`.
        libra: see `ClassGradients`.

    Raises:
        ModelError: if the stream does not reproduce the model's own readout.
        NotSupportedError: if LibraGrad does not apply, or has no rule for an operation.
    """
    seeds = output_gradients(trace.logits, targets, libra=libra)
    return ClassGradients(trace, gradient, libra=libra).readouts(seeds)


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
