"""Many people at once: the web app under clients that check every map they get.

    python -m benchmarks.app_clients --clients 50 --seconds 60 --out benchmarks/out

`gradtoken serve` runs in a process of its own on the loopback interface. Each client has pictures
of its own (generated scenes); again and again it uploads one, asks for other classes, moves sliders
(threshold, smoothing, blocks) and now and then compares methods, downloads the maps or deletes its
picture, without a pause. Every map is compared with what `explain` gives for that picture, class
and blocks, so another one's map would be noticed. The server's memory, threads and open files are
read once a second (from /proc). Exit code 1 on an error, a wrong map, an upload that is still
there at the end, or memory, threads or files that are not flat: more than 5 % and 30 MB, 4
threads or 8 files above the median of the second sixth of the time in that of the last one. Writes
clients.json.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from benchmarks.app_clients.people import Found, Person, people
from benchmarks.app_clients.usage import LIMITS, Usage, grown, series, stretches, usage
from benchmarks.cost import machine

import gradtoken


def watched(everybody: list[Person], process: int, seconds: float) -> list[Usage]:
    """Let everybody live for a while, and look at the server each second."""
    begun = time.monotonic()
    threads = [
        threading.Thread(target=person.live, args=(begun + seconds, seed))
        for seed, person in enumerate(everybody)
    ]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        seen.append(usage(process, begun))
        time.sleep(1)
    return seen


def judge(found: Found, seen: list[Usage], left: list[Path], seconds: float) -> dict[str, Any]:
    """The figures, and what of them is not as it has to be."""
    held = {what: stretches(seen, what, seconds) for what in LIMITS}
    wrong = [says for what in LIMITS if (says := grown(what, held[what]))]
    for what, told in (("errors", found.errors), ("wrong maps", found.wrong)):
        if told:
            wrong.append(f"{len(told)} {what}, the first being {told[0]}")
    if left:
        wrong.append(f"{len(left)} uploads are left, the first being {left[0].name}")
    every = sorted(s for times in found.seconds.values() for s in times)
    return {
        "seconds": seconds,
        "requests": {what: len(times) for what, times in found.seconds.items()},
        "requests_per_second": len(every) / seconds,
        "median_seconds": {what: statistics.median(t) for what, t in found.seconds.items()},
        "percentile_95_seconds": every[int(0.95 * len(every))] if every else None,
        "errors": len(found.errors),
        "wrong_maps": len(found.wrong),
        "uploads_left": len(left),
        **held,
        "series": series(seen),
        "not_as_it_has_to_be": wrong,
    }


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    """`gradtoken serve` with its temporary files in a folder; yields its address and process."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port = int(tried.getsockname()[1])
    command = [sys.executable, "-m", "gradtoken", "serve", "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(folder)}
    )
    try:
        url = f"http://127.0.0.1:{port}/"
        _await(url, process)
        yield url, process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit("the server ended before it served")
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SystemExit("the server did not begin to serve")


def main() -> None:
    """The benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = Found()
    with tempfile.TemporaryDirectory() as pictures, tempfile.TemporaryDirectory() as own:
        model = gradtoken.load("demo", device="cpu")
        with server(Path(own)) as (url, process):
            everybody = people(url, options.clients, Path(pictures), found, model)
            print(f"{len(everybody)} clients", flush=True)
            seen = watched(everybody, process, options.seconds)
            left = [path for path in Path(own).rglob("*") if path.is_file()]
    outcome = {
        "machine": machine.describe(torch.device("cpu")),
        "clients": options.clients,
        **judge(found, seen, left, options.seconds),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "clients.json").write_text(json.dumps(outcome, indent=2) + "\n")
    print(json.dumps({name: told for name, told in outcome.items() if name != "series"}, indent=2))
    if outcome["not_as_it_has_to_be"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
