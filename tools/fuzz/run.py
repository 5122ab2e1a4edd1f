"""Fuzz one target or all, and say what was found.

    python tools/fuzz/run.py --target images --inputs 10000 --record runs/fuzz.json
    python tools/fuzz/run.py --table runs/fuzz.json

Inputs are drawn from a seed: `--start 4711 --inputs 1` hands in number 4711 alone. Each is handed
in by a worker process, which is killed when one takes too long; a worker that dies is started
again behind the input that killed it. With `--record`, slices of a run are kept in one file, and a
later one adds to them. The exit code is 1 if any input failed.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz import target as targets

_HANGING = 30.0
"""How many times a target's own limit its worker may be silent before it is killed."""
_STARTING = 120.0


def run(name: str, seed: int, start: int, stop: int, seconds: float) -> dict[str, Any]:
    """Hand in the inputs [start, stop), or those that `seconds` are enough for."""
    limits = targets.find(name)
    found: dict[str, Any] = {
        "seed": seed,
        "start": start,
        "inputs": 0,
        "taken": 0,
        "refused": 0,
        "failures": [],
        "slowest": {"index": start, "seconds": 0.0},
        "largest": {"index": start, "megabytes": 0.0},
        "limits": {"seconds": limits.seconds, "megabytes": limits.megabytes},
        "python": platform.python_version(),
    }
    began = time.monotonic()
    at = start
    while at < stop and time.monotonic() - began < seconds:
        at = _work(name, seed, at, stop, began + seconds, limits.seconds * _HANGING, found)
    found["inputs"], found["seconds"] = at - start, round(time.monotonic() - began, 1)
    return found


def _work(
    name: str, seed: int, at: int, stop: int, until: float, patience: float, found: dict[str, Any]
) -> int:
    """One worker's life; returns the next input."""
    command = [sys.executable, str(Path(__file__).with_name("worker.py")), name]
    worker = subprocess.Popen([*command, str(seed), str(at), str(stop)], stdout=subprocess.PIPE)
    lines: Queue[bytes] = Queue()
    Thread(target=_listen, args=(worker.stdout, lines), daemon=True).start()
    wait = _STARTING
    try:
        while at < stop and time.monotonic() < until:
            try:
                line = lines.get(timeout=wait)
            except Empty:
                found["failures"].append({"index": at, "kind": "hang", "detail": ""})
                return at + 1
            if not line and wait == _STARTING:
                raise SystemExit(f"the worker of {name} does not start; run worker.py by itself.")
            if not line:
                kind = f"died ({worker.wait()})"
                found["failures"].append({"index": at, "kind": kind, "detail": ""})
                return at + 1
            wait, one = patience, json.loads(line)
            if "index" in one:
                _count(one, found)
                at = one["index"] + 1
        return at
    finally:
        worker.kill()
        worker.wait()


def _listen(stream: IO[bytes], lines: Queue[bytes]) -> None:
    """Each line of a stream, and an empty one at its end."""
    for line in stream:
        lines.put(line)
    lines.put(b"")


def _count(one: dict[str, Any], found: dict[str, Any]) -> None:
    if one["kind"] in ("taken", "refused"):
        found[one["kind"]] += 1
    else:
        found["failures"].append({key: one[key] for key in ("index", "kind", "detail")})
    for key, what in (("slowest", "seconds"), ("largest", "megabytes")):
        if one[what] > found[key][what]:
            found[key] = {"index": one["index"], what: one[what]}


def record(path: Path, name: str, found: dict[str, Any]) -> None:
    """Add a slice to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = json.loads(path.read_text()) if path.exists() else {}
    held.setdefault(name, []).append(found)
    path.write_text(json.dumps(held, indent=1) + "\n")


def table(path: Path) -> str:
    """A Markdown table of what is recorded."""
    lines = [
        "| target | inputs | taken | refused | failed | slowest | most memory | limits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, slices in sorted(json.loads(path.read_text()).items()):
        inputs, taken, refused = (sum(s[k] for s in slices) for k in ("inputs", "taken", "refused"))
        failed = sum(len(s["failures"]) for s in slices)
        slowest = max(s["slowest"]["seconds"] for s in slices)
        largest = max(s["largest"]["megabytes"] for s in slices)
        limits = slices[-1]["limits"]
        lines.append(
            f"| {name} | {inputs:,} | {taken:,} | {refused:,} | {failed} | {slowest:.2f} s | "
            f"{largest:.0f} MB | {limits['seconds']:g} s, {limits['megabytes']:g} MB |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="all", choices=["all", *targets.names()])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--record", type=Path, help="add what is found to this JSON file")
    parser.add_argument("--table", type=Path, help="print what such a file holds, and do no more")
    args = parser.parse_args()
    if args.table:
        print(table(args.table))
        return 0
    failed = 0
    for name in targets.names() if args.target == "all" else [args.target]:
        found = run(name, args.seed, args.start, args.start + args.inputs, args.seconds)
        print(json.dumps({name: found}, indent=1), flush=True)
        if args.record:
            record(args.record, name, found)
        failed += len(found["failures"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
