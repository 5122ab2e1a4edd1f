"""(e) How long a user waits before anything happens."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

_COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import torch, timm": [sys.executable, "-c", "import torch, timm"],
    "import gradtoken": [sys.executable, "-c", "import gradtoken"],
    "import torch, timm, gradtoken; gradtoken.explain": [
        sys.executable,
        "-c",
        "import torch, timm, gradtoken; gradtoken.explain",
    ],
    "gradtoken --help": [sys.executable, "-m", "gradtoken", "--help"],
}


def measure(
    device: torch.device, dtype: torch.dtype, rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Median seconds of fresh processes, taken in turn."""
    say("start-up")
    times: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for _ in range(max(5, rounds)):
        for name, command in _COMMANDS.items():
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[name].append(time.perf_counter() - begun)
    return [
        {"what": name, "seconds": statistics.median(seconds)} for name, seconds in times.items()
    ]
