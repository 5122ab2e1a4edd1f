"""The steps of the readout that count, with their weights."""

from __future__ import annotations

from gradtoken.attribution.layers import Layers, select_layers
from gradtoken.errors import MethodError
from gradtoken.trace.readout import Readout, Readouts
from gradtoken.trace.trace import Trace

TAIL_PART = -1
"""The index, among a target's parts, of the steps after the last block."""


def chosen_steps(
    readouts: Readouts, trace: Trace, *, layers: Layers, depth: float
) -> list[tuple[int, float, Readout]]:
    """The steps of the blocks that `layers` selects, and all of the tail, with block and weight.

    Args:
        readouts: all steps.
        trace: the record that they are of.
        layers: which blocks count.
        depth: exponent of a block's weight (l / L)^depth, l from 1.

    Raises:
        MethodError: if `layers` chooses among blocks and the readout is followed after the last one
            only.
    """
    tail = [(TAIL_PART, 1.0, step) for step in readouts.tail]
    if not readouts.blocks:
        if layers != "all":
            raise MethodError(
                f"layers={layers!r} chooses among blocks, but the readout of {trace.model.spec} "
                f"({trace.model.anatomy.readout}) is followed after the last one only; use "
                'layers="all".'
            )
        return tail
    chosen = select_layers(layers, trace.depth)
    assert all(readouts.blocks[block] for block in chosen), "a chosen block was not recorded"
    weights = [((block + 1) / trace.depth) ** depth for block in chosen]
    pairs = zip(chosen, weights, strict=True)
    return [(block, w, step) for block, w in pairs for step in readouts.blocks[block]] + tail
