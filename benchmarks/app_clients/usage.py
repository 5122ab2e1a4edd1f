"""What the server holds, and whether that grows."""

from __future__ import annotations

import os
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMITS = {"bytes": (1.05, 30e6), "threads": (1.05, 4), "files": (1.05, 8)}
"""Flat is what stays below this ratio, or above it by no more than that."""


@dataclass(frozen=True)
class Usage:
    """What a process held at one moment."""

    at: float
    bytes: int
    threads: int
    files: int


def usage(process: int, begun: float) -> Usage:
    """What a process holds now (Linux)."""
    status = Path(f"/proc/{process}/status").read_text()
    held = {name: int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "Threads")}
    files = len(os.listdir(f"/proc/{process}/fd"))
    return Usage(time.monotonic() - begun, held["VmRSS"] * 1024, held["Threads"], files)


def stretches(seen: list[Usage], what: str, seconds: float) -> dict[str, float]:
    """The medians of one figure in the second and in the last sixth of the time, and its most."""

    def median(first: float, last: float) -> float:
        held = [getattr(one, what) for one in seen if first <= one.at <= last]
        return statistics.median(held or [0])

    return {
        "early": median(seconds / 6, seconds / 3),
        "late": median(seconds * 5 / 6, seconds),
        "most": max(getattr(one, what) for one in seen),
    }


def grown(what: str, held: dict[str, float]) -> str | None:
    """A sentence, if a figure is not flat."""
    ratio, slack = LIMITS[what]
    early, late = held["early"], held["late"]
    if late <= early * ratio or late <= early + slack:
        return None
    unit = 1e6 if what == "bytes" else 1
    name = "megabytes" if what == "bytes" else what
    return f"{name} grew from {early / unit:.0f} to {late / unit:.0f}"


def series(seen: list[Usage], points: int = 60) -> list[dict[str, Any]]:
    """Some of the moments, evenly."""
    step = max(1, len(seen) // points)
    return [
        {"at": round(one.at, 1), "bytes": one.bytes, "threads": one.threads, "files": one.files}
        for one in seen[::step]
    ]
