"""(b) Many classes of one image: how the cost grows from 1 to 1000."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from benchmarks.cost.live import most_bytes
from benchmarks.cost.methods import forward
from benchmarks.cost.models import build, noise
from benchmarks.cost.timing import Run, interleaved

import gradtoken

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def measure(
    device: torch.device, dtype: torch.dtype, rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each number of targets of ViT-B/16: ratios to the forward."""
    model = build("vit_base_patch16_224", device, dtype)
    images = noise(model, 1)
    runs: dict[str, Run] = {"0": partial(forward, model, images)}
    for count in COUNTS:
        runs[str(count)] = partial(gradtoken.explain, model, images, list(range(count)))
    say("1 to 1000 targets of ViT-B/16")
    timed = interleaved(runs, rounds, device)
    peaks = {name: most_bytes(model.module, run) for name, run in runs.items()}
    return [
        {
            "targets": int(name),
            "seconds": timing.seconds,
            "time": timing.ratio,
            "memory": peaks[name] / peaks["0"],
        }
        for name, timing in timed.items()
    ]
