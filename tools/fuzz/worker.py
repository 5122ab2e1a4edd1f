"""Hands inputs in one after the other and prints a line of JSON about each."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
import tempfile
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.target import check, find

_HEADROOM = 8 << 30
"""Address space that inputs may take before the process fails rather than the machine."""


def generator(name: str, seed: int, index: int) -> Random:
    """The generator of one input, so that any can be drawn again alone."""
    return Random(f"{name}:{seed}:{index}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("seed", type=int)
    parser.add_argument("start", type=int)
    parser.add_argument("stop", type=int)
    args = parser.parse_args()
    report = os.fdopen(os.dup(1), "w", buffering=1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    target = find(args.target)
    with tempfile.TemporaryDirectory(prefix="gradtoken-fuzz-") as work:
        warm = Path(work) / "warm"
        warm.mkdir()
        check(target, generator(args.target, args.seed, 0), warm)
        _limit_memory()
        os.dup2(quiet, 2)
        print(json.dumps({"ready": True}), file=report)
        for index in range(args.start, args.stop):
            folder = Path(work) / str(index)
            folder.mkdir()
            found = check(target, generator(args.target, args.seed, index), folder)
            detail = found.detail if found.failed else found.detail[:200]
            line = {
                "index": index,
                "kind": found.kind,
                "detail": detail,
                "seconds": round(found.seconds, 4),
                "megabytes": round(found.megabytes, 1),
            }
            print(json.dumps(line), file=report)
            with contextlib.suppress(OSError):
                _remove(folder)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    now = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + _HEADROOM, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
