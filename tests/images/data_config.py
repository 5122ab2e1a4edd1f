"""The preprocessing of a timm model, as its configuration says it."""

from __future__ import annotations


def config(**changes: object) -> dict:
    return {
        "input_size": (3, 64, 64),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "crop_pct": 0.9,
        **changes,
    }
