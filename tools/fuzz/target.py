"""What a fuzz target is, and what must hold for each of its inputs."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from random import Random

from gradtoken.atomic import PREFIX
from gradtoken.errors import GradTokenError

_LONGEST = 2000
"""Characters of an error that can still be called one sentence."""
_WAITING = 20
"""How many times as long as an input may compute it may take in all, on a machine that is busy."""
_TEMPORARY = (".gradtoken-*", PREFIX + "[0-9a-f]" * 16 + "*", "*.tmp")
"""Names of half-written files."""


@dataclass(frozen=True)
class Target:
    """One room of the house under fire.

    Args:
        attempt: draws one input from a generator and hands it in; what it writes goes to the
            folder, which is empty at first. It returns for input that is taken, raises a
            `GradTokenError` for input that is refused, and `AssertionError` where what came out is
            wrong.
        seconds: the longest that one input may compute, in seconds of CPU time of the process.
        megabytes: the most memory that one input may add.
        instrumented: modules whose branches guide a coverage-guided run.
    """

    attempt: Callable[[Random, Path], None]
    seconds: float = 10
    megabytes: float = 256
    instrumented: tuple[str, ...] = ("gradtoken",)


@dataclass(frozen=True)
class Outcome:
    """What became of one input: "taken", "refused", or how it failed; `seconds` of CPU time."""

    kind: str
    detail: str
    seconds: float
    megabytes: float

    @property
    def failed(self) -> bool:
        return self.kind not in ("taken", "refused")


def names() -> list[str]:
    """Every target: the files of `targets`."""
    return sorted(found.name for found in iter_modules(import_module("fuzz.targets").__path__))


def find(name: str) -> Target:
    """A target by the name of its file, or by a module's full name."""
    target: Target = import_module(name if "." in name else f"fuzz.targets.{name}").TARGET
    return target


def check(target: Target, rng: Random, folder: Path) -> Outcome:
    """Hand one input in and see that the house's promises hold."""
    before = reset_peak()
    start, begun = time.process_time(), time.monotonic()
    kind, detail = "taken", ""
    try:
        target.attempt(rng, folder)
    except GradTokenError as error:
        kind, detail = "refused", str(error)
        if not detail.strip() or "\n" in detail or len(detail) > _LONGEST:
            kind = "not one sentence"
    except Exception as error:
        kind = type(error).__name__
        detail = "".join(traceback.format_exception(error)[-6:])
    seconds, waited = time.process_time() - start, time.monotonic() - begun
    megabytes = max(0.0, peak() - before)
    left = [path.name for pattern in _TEMPORARY for path in folder.rglob(pattern)]
    if kind in ("taken", "refused"):
        if left:
            kind, detail = "half-written file", ", ".join(left)
        elif seconds > target.seconds or waited > _WAITING * target.seconds:
            kind = "too slow"
        elif megabytes > target.megabytes:
            kind = "too much memory"
    return Outcome(kind, detail, seconds, megabytes)


def reset_peak() -> float:
    """Forget the process's peak of memory and say what it holds now, in MB (0 where unknown)."""
    gc.collect(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0.0
    return peak()


def peak() -> float:
    """The process's peak of memory in MB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
