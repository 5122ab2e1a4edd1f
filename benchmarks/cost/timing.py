"""Times of several things in one run, taken in turn, so that ratios mean something."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Run = Callable[[], object]


@dataclass(frozen=True)
class Timed:
    """Median seconds, and the median ratio to the first thing's time in the same round."""

    seconds: float
    ratio: float


def interleaved(
    runs: Mapping[str, Run], rounds: int, device: torch.device | None = None
) -> dict[str, Timed]:
    """Time each thing once a round; the first one is what the others are compared with."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(once(run, device))
    base = times[next(iter(runs))]
    return {
        name: Timed(
            statistics.median(seconds),
            statistics.median(s / b for s, b in zip(seconds, base, strict=True)),
        )
        for name, seconds in times.items()
    }


def once(run: Run, device: torch.device | None = None) -> float:
    """Seconds of one run; on a GPU between two events on its stream."""
    if device is not None and device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end)) / 1000
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
