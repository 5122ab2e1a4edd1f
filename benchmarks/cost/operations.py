"""Counted floating-point operations, which do not depend on the machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from benchmarks.cost.methods import TARGET, forward
from benchmarks.cost.models import build, noise
from torch.utils.flop_counter import FlopCounterMode

import gradtoken


def count(run: Callable[[], object]) -> int:
    """Operations of a run, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def measure(
    device: torch.device, dtype: torch.dtype, rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Ratios to the forward of ViT-B/16."""
    say("operations")
    model = build("vit_base_patch16_224", device, dtype)
    images = noise(model, 1)
    base = count(lambda: forward(model, images))
    requested: dict[str, Any] = {"1": TARGET, "10": list(range(10)), "1000": "all"}
    rows = []
    for name, targets in requested.items():
        spent = count(partial(gradtoken.explain, model, images, targets))
        rows.append({"what": f"{name} target(s)", "ratio": spent / base})
    full = count(lambda: gradtoken.explain(model, images, TARGET, gradient="full"))
    return [*rows, {"what": "1 target, full gradient", "ratio": full / base}]
