"""How the blocks of a model are run on the readout tokens alone."""

from __future__ import annotations

from dataclasses import replace

import torch

from gradtoken.models.model import Model
from gradtoken.models.reading.observe import FAILURES, Observation, with_autograd
from gradtoken.models.verification import Fact
from gradtoken.tap.anatomy import STEPS
from gradtoken.tap.frozen_context import STREAM_TOLERANCE, run_stream, stream_gap
from gradtoken.tap.linear_cache import LinearCache


def choose_step(model: Model, observed: Observation, number: int) -> Model:
    """The model with the step that runs its blocks on the readout tokens alone.

    Its reading notes whether these tokens then are the model's own.
    """
    record = observed.records[number]
    calls = [call for call in observed.calls[number] if call.place >= 0]
    allowed = STREAM_TOLERANCE.get(calls[0].key.dtype, 0.1) if calls else 0.0
    gaps = {}
    cache, copies = LinearCache([]), model.writes_in_place
    with with_autograd(model), torch.enable_grad():
        for step in dict.fromkeys((model.anatomy.step, *STEPS)):
            anatomy = replace(model.anatomy, step=step)
            try:
                stream = run_stream(
                    anatomy, model.layout.rows, record, calls, cache, copies=copies, compare=True
                )
            except FAILURES:
                continue
            gaps[step] = stream_gap(stream, record, model.layout.rows)
            if gaps[step] <= allowed:
                break
    if not gaps:
        assert model.reading is not None
        model.reading.stream = False
        return model
    best = min(gaps, key=lambda step: gaps[step])
    fact = Fact("difference between the readout's own stream and the model", gaps[best], allowed)
    assert model.reading is not None
    model.reading.facts = (*model.reading.facts, fact)
    model.reading.stream = gaps[best] <= allowed
    return replace(model, anatomy=replace(model.anatomy, step=best))
