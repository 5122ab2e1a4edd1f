"""(c) More tokens, smaller patches, more blocks: how one map's cost grows beside the forward's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from benchmarks.cost.methods import TARGET, forward
from benchmarks.cost.models import build, noise
from benchmarks.cost.timing import Run, interleaved

import gradtoken

SIDES = (224, 384, 512, 768, 1024)
PATCHES = ((16, SIDES), (8, (224, 384, 512)))
DEPTHS = (3, 6, 12, 24, 48)


def measure(
    device: torch.device, dtype: torch.dtype, rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each ViT-S: GradToken and GAE (full backward), as ratios to the forward."""
    rows = []
    for patch, sides in PATCHES:
        for side in sides:
            say(f"patch {patch}, {side} pixels")
            options = {"img_size": side, "patch_size": patch}
            rows.append(_row(device, dtype, rounds, side, patch=patch, **options))
    for depth in DEPTHS:
        say(f"{depth} blocks")
        rows.append(_row(device, dtype, rounds, 224, patch=16, depth=depth))
    return rows


def _row(
    device: torch.device, dtype: torch.dtype, rounds: int, side: int, *, patch: int, **options: int
) -> dict[str, Any]:
    model = build("vit_small_patch16_224", device, dtype, **options)
    images = noise(model, 1, side)
    runs: dict[str, Run] = {
        "forward": partial(forward, model, images),
        "gradtoken": partial(gradtoken.explain, model, images, TARGET),
        "full": partial(gradtoken.explain, model, images, TARGET, gradient="full"),
    }
    timed = interleaved(runs, rounds, device)
    return {
        "patch": patch,
        "side": side,
        "depth": len(model.anatomy.blocks),
        "tokens": (side // patch) ** 2 + 1,
        "seconds": timed["forward"].seconds,
        "gradtoken": timed["gradtoken"].ratio,
        "full": timed["full"].ratio,
    }
