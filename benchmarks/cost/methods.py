"""(a) One map of one class: every method of ours, and other packages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from benchmarks.cost.live import most_bytes
from benchmarks.cost.models import SIZES, build, noise
from benchmarks.cost.peers import peers
from benchmarks.cost.timing import Run, interleaved

import gradtoken
from gradtoken.models import Model

TARGET = 3

HALF = "gradtoken, layers=half"
"""The fastest setting that keeps the metrics of docs/results.md."""


def measure(
    device: torch.device, dtype: torch.dtype, rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each model, batch and method: time and peak memory, as ratios to the forward."""
    rows = []
    for label, name in SIZES.items():
        model = build(name, device, dtype)
        for batch in (1, 16):
            say(f"{label}, batch {batch}")
            rows += _rows(label, model, batch, rounds if batch == 1 else max(2, rounds // 3))
    return rows


def _rows(label: str, model: Model, batch: int, rounds: int) -> list[dict[str, Any]]:
    images, failures = noise(model, batch), {}
    runs = ours(model, images)
    for name, kind in gradtoken.methods().items():
        if not kind.slow and not kind.of_prompts:
            runs[name] = partial(gradtoken.explain, model, images, TARGET, method=name)
    for name, run in peers(model.module, images, TARGET, batch > 1).items():
        if isinstance(run, str):
            failures[name] = run
        else:
            runs[name] = run
    not_run = [
        {"model": label, "batch": batch, "method": name, "ours": False, "failure": why}
        for name, why in failures.items()
    ]
    return rows_of(label, model, batch, runs, rounds) + not_run


def ours(model: Model, images: torch.Tensor) -> dict[str, Run]:
    """The forward, GradToken, and its fastest setting."""
    return {
        "forward": partial(forward, model, images),
        "gradtoken": partial(gradtoken.explain, model, images, TARGET),
        HALF: partial(gradtoken.explain, model, images, TARGET, layers="half"),
    }


def rows_of(
    label: str, model: Model, batch: int, runs: dict[str, Run], rounds: int
) -> list[dict[str, Any]]:
    """A row for each run, with its time and peak memory as ratios to the first one's."""
    rows = []
    for name, timed in interleaved(runs, rounds, model.device).items():
        run = runs[name]
        rows.append(
            {
                "model": label,
                "batch": batch,
                "method": name,
                "ours": name == HALF or name in gradtoken.methods(),
                "seconds": timed.seconds,
                "time": timed.ratio,
                "bytes": most_bytes(model.module, run),
            }
        )
    base = rows[0]["bytes"]
    for row in rows:
        row["memory"] = row["bytes"] / base
    return rows


def forward(model: Model, images: torch.Tensor) -> torch.Tensor:
    """The model's own forward, without a graph: what all ratios are to."""
    with torch.no_grad():
        return model.module(images)
