"""Where the time of one explanation goes."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from benchmarks.cost.methods import TARGET, forward
from benchmarks.cost.models import build, noise
from benchmarks.cost.timing import once

from gradtoken.attribution import make_method
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace.autograd import gradients_enabled, output_gradients
from gradtoken.trace.backward import backward_through_tail
from gradtoken.trace.record import record
from gradtoken.trace.stream import stream_readouts, verified_stream
from gradtoken.trace.trace import Trace


def measure(
    device: torch.device, dtype: torch.dtype, rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each step on ViT-B/16, as a share of the forward's time."""
    model = build("vit_base_patch16_224", device, dtype)
    rows = []
    for batch in (1, 16):
        say(f"steps, batch {batch}")
        images = noise(model, batch)
        for name, share in _shares(model, images, rounds if batch == 1 else 3).items():
            rows.append({"batch": batch, "step": name, "share of the forward": share})
    return rows


def _shares(model: Model, images: torch.Tensor, rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {}
    method = make_method("gradtoken")
    parts = {
        'one map, preset="v0.1"': {"preset": "v0.1"},
        "one map": {"rivals": 0, "spread": None},
        "one map, with rivals": {"spread": None},
        "one map, with rivals and spread": {},
    }
    methods = {name: make_method("gradtoken", **options) for name, options in parts.items()}
    affinity = method.affinity_blocks(len(model.anatomy.blocks))

    def note(name: str, run: Callable[[], Any]) -> Any:
        kept: list[Any] = []
        seconds = once(lambda: kept.append(run()), model.device)
        times.setdefault(name, []).append(seconds)
        return kept[0]

    def turn() -> None:
        note("forward alone", partial(forward, model, images))
        note("forward, recorded", partial(record, model, images, queries=False))
        trace: Trace = note(
            "forward, recorded with the attention between patches",
            partial(record, model, images, queries=False, affinity=affinity),
        )
        targets = resolve([TARGET], trace.logits, model.labels)
        seeds = output_gradients(trace.logits, targets)
        _, arriving = note("gradient of the head", partial(backward_through_tail, trace, seeds))
        with gradients_enabled(trace.model):
            stream = note("stream, forward", partial(verified_stream, trace))
            note("stream, backward", partial(stream_readouts, trace, stream, arriving))
        for name, one in methods.items():
            note(name, partial(one, trace, targets))

    with model.evaluating(), torch.no_grad():
        turn()
        times.clear()
        for _ in range(rounds):
            turn()
    base = statistics.median(times["forward alone"])
    return {name: statistics.median(seconds) / base for name, seconds in times.items()}
