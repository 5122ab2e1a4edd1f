"""A fuzz target that fails in every way, to see that the runner notices."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import numpy as np
from fuzz.target import Target

from gradtoken.errors import ImageError


def attempt(rng: Random, folder: Path) -> None:
    """The first input of a worker is a warm-up; then input 1, 2, … each fail in their own way."""
    if folder.name == "warm":
        return
    index = int(folder.name)
    if index == 1:
        raise ImageError("refused.")
    if index == 2:
        raise ValueError("let out")
    if index == 3:
        os.abort()
    if index == 4:
        time.sleep(10_000)
    if index == 5:
        np.ones(80 << 20, np.uint8).sum()
    if index == 6:
        (folder / ".gradtoken-x").write_text("")
    if index == 7:
        raise ImageError("")
    if index == 8:
        begun = time.process_time()
        while time.process_time() < begun + 0.6:
            pass


TARGET = Target(attempt, seconds=0.4, megabytes=60)
