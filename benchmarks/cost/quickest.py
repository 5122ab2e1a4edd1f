"""One map of one class on ViT-B/16 beside the quickest peers, in many rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from benchmarks.cost.methods import TARGET, ours, rows_of
from benchmarks.cost.models import build, noise
from benchmarks.cost.peers import QUICK, peers


def measure(
    device: torch.device, dtype: torch.dtype, rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Rows as those of `methods`; a batch of one is measured in three times as many rounds."""
    model = build("vit_base_patch16_224", device, dtype)
    rows = []
    for batch in (1, 16):
        say(f"quickest, batch {batch}")
        images = noise(model, batch)
        runs = ours(model, images)
        others = peers(model.module, images, TARGET, batch > 1, QUICK)
        runs |= {name: run for name, run in others.items() if not isinstance(run, str)}
        rows += rows_of("ViT-B/16", model, batch, runs, 3 * rounds if batch == 1 else rounds)
    return rows
