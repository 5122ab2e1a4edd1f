"""Many people at once: the web app under clients that check every map they get.

    python benchmarks/app_clients.py --clients 50 --seconds 60 --out benchmarks/out

`gradtoken serve` runs in a process of its own on the loopback interface. Each client has pictures
of its own (generated scenes); again and again it uploads one, asks for other classes and moves a
slider, without a pause. Every map is compared with what `explain` gives for that picture and class,
so another one's map would be noticed. The server's memory, threads and open files are read once a
second (from /proc). Exit code 1 on an error, a wrong map, or memory that is not flat: more than 5 %
and 30 MB above the median of the second sixth of the time in that of the last one. Writes
clients.json.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from gradio_client import Client, handle_file

import gradtoken
from gradtoken.app.wiring import FOR, NOBODY
from gradtoken.datasets import Scenes

GROWTH, SLACK = 1.05, 30e6
"""Memory is flat below this ratio or above it by fewer bytes."""


@dataclass
class Found:
    """What the clients saw."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what: str, seconds: float) -> None:
        """Note an answer."""
        with self.lock:
            self.seconds.setdefault(what, []).append(seconds)


@dataclass(frozen=True)
class Usage:
    """What the server held at one moment."""

    at: float
    bytes: int
    threads: int
    files: int


class Person:
    """One client with pictures of its own.

    Args:
        url: of the server.
        pictures: path and all classes' maps (C, h, w) of each.
        found: gets what it sees.
    """

    def __init__(self, url: str, pictures: list[tuple[Path, np.ndarray]], found: Found) -> None:
        self._client = Client(url, verbose=False)
        self._pictures, self._found = pictures, found
        self._maps = pictures[0][1]
        self._ticked: list[int] = []

    def live(self, until: float, seed: int) -> None:
        """Look at pictures until the time is over."""
        chance = np.random.default_rng(seed)
        try:
            while time.monotonic() < until:
                path, self._maps = self._pictures[chance.integers(len(self._pictures))]
                offered = self._open(path)
                for _ in range(3):
                    if time.monotonic() >= until:
                        return
                    some = chance.permutation(offered)[: chance.integers(1, 4)]
                    self._ask([int(index) for index in some])
                    self._look(float(chance.uniform(0, 0.9)), float(chance.uniform(0, 1)))
        except Exception as error:  # whatever it is, it is an error that a person would see
            with self._found.lock:
                self._found.errors.append(f"{type(error).__name__}: {str(error)[:300]}")

    def _open(self, path: Path) -> list[int]:
        shown = self._timed("open", handle_file(path), "", *_look(0, 0), api_name="/open_file")
        self._ticked = shown[4]["value"]
        self._check(shown[1], "open")
        return [index for _, index in shown[4]["choices"]]

    def _ask(self, ticked: list[int]) -> None:
        self._ticked = ticked
        shown = self._timed("ask", ticked, NOBODY[1], NOBODY[1], *_look(0, 0), api_name="/ask")
        self._check(shown[1], "ask")

    def _look(self, threshold: float, smoothing: float) -> None:
        shown = self._timed("look", *_look(threshold, smoothing), api_name="/redraw")
        self._check(shown[1], "look")

    def _timed(self, what: str, *inputs: Any, api_name: str) -> Any:
        begun = time.monotonic()
        shown = self._client.predict(*inputs, api_name=api_name)
        self._found.add(what, time.monotonic() - begun)
        if "gt-problem" in shown[0]:
            raise RuntimeError(re.sub("<[^>]*>", "", shown[0]))
        return shown

    def _check(self, html: str, what: str) -> None:
        tokens = tokens_in(html)
        expected = self._maps[self._ticked]
        if tokens.shape != expected.shape or not np.allclose(tokens, expected, 1e-3, 1e-5):
            with self._found.lock:
                self._found.wrong.append(f"{what}: maps of classes {self._ticked} are others")


def tokens_in(html: str) -> np.ndarray:
    """The numbers behind the maps of a page, (K, h, w)."""
    grid = [int(side) for side in re.search(r'data-grid="(\d+) (\d+)"', html).groups()]
    data = base64.b64decode(re.search(r'data-tokens="([^"]+)"', html)[1])
    return np.frombuffer(data, "<f4").reshape(-1, *grid)


def people(url: str, count: int, folder: Path, found: Found, model: Any) -> list[Person]:
    """Clients with two pictures each, and what their maps have to be."""
    scenes = Scenes("test", objects=2, seed=21)
    paths = [folder / f"{index}.png" for index in range(2 * count)]
    for index, path in enumerate(paths):
        scenes[index].image.save(path)
    maps = [one.tokens[0].numpy() for one in gradtoken.explain_each(model, paths, "all")]
    pairs = list(zip(paths, maps, strict=True))
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda i: Person(url, pairs[2 * i : 2 * i + 2], found), range(count)))


def usage(process: int, begun: float) -> Usage:
    """What a process holds now."""
    status = Path(f"/proc/{process}/status").read_text()
    held = {name: int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "Threads")}
    files = len(os.listdir(f"/proc/{process}/fd"))
    return Usage(time.monotonic() - begun, held["VmRSS"] * 1024, held["Threads"], files)


def watched(all_people: list[Person], process: int, seconds: float) -> list[Usage]:
    """Let everybody live for a while, and look at the server each second."""
    begun = time.monotonic()
    threads = [
        threading.Thread(target=person.live, args=(begun + seconds, seed))
        for seed, person in enumerate(all_people)
    ]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        seen.append(usage(process, begun))
        time.sleep(1)
    return seen


def between(seen: list[Usage], first: float, last: float) -> float:
    """The median of the memory in a stretch of time."""
    return statistics.median([one.bytes for one in seen if first <= one.at <= last] or [0])


def judge(found: Found, seen: list[Usage], seconds: float) -> dict[str, Any]:
    """The figures, and what of them is not as it has to be."""
    early = between(seen, seconds / 6, seconds / 3)
    late = between(seen, seconds * 5 / 6, seconds)
    wrong = []
    if found.errors:
        wrong.append(f"{len(found.errors)} errors, the first being {found.errors[0]}")
    if found.wrong:
        wrong.append(f"{len(found.wrong)} wrong maps, the first being {found.wrong[0]}")
    if late > early * GROWTH and late > early + SLACK:
        wrong.append(f"memory grew from {early / 1e6:.0f} to {late / 1e6:.0f} MB")
    every = sorted(s for times in found.seconds.values() for s in times)
    return {
        "seconds": seconds,
        "requests": len(every),
        "errors": len(found.errors),
        "wrong_maps": len(found.wrong),
        "median_seconds": {what: statistics.median(t) for what, t in found.seconds.items()},
        "percentile_95_seconds": every[int(0.95 * len(every))] if every else None,
        "bytes": {"early": early, "late": late, "most": max(one.bytes for one in seen)},
        "threads": {"first": seen[0].threads, "last": seen[-1].threads},
        "files": {"first": seen[0].files, "last": seen[-1].files},
        "not_as_it_has_to_be": wrong,
    }


def _look(threshold: float, smoothing: float) -> tuple[Any, ...]:
    return (0.85, threshold, smoothing, FOR, 1, 6)


def _free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


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
    port, found = _free_port(), Found()
    url = f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-m", "gradtoken", "serve", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = gradtoken.load("demo", device="cpu")
            _await(url, server)
            everybody = people(url, options.clients, Path(folder), found, model)
            print(f"{len(everybody)} clients", flush=True)
            seen = watched(everybody, server.pid, options.seconds)
    finally:
        server.terminate()
        try:
            server.wait(30)
        finally:
            server.kill()
    outcome = {"clients": options.clients, **judge(found, seen, options.seconds)}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "clients.json").write_text(json.dumps(outcome, indent=2) + "\n")
    print(json.dumps(outcome, indent=2))
    if outcome["not_as_it_has_to_be"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
