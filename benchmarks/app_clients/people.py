"""Clients with pictures of their own, which know what they have to be shown."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.app_clients.pages import problem_in, tokens_in, tokens_of
from gradio_client import Client, handle_file

import gradtoken
from gradtoken.app.wiring import FOR, NOBODY
from gradtoken.datasets import Scenes
from gradtoken.models import Model

BLOCKS = ((1, 6), (4, 6))
"""First and last block that count, as the clients choose them: all of the bundled model's, or the
upper half."""

OTHERS = ("gradtoken", "grad-cam")
"""Methods that they compare."""


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


@dataclass(frozen=True, eq=False)
class Picture:
    """A file, and the maps (C, h, w) of all classes, by the blocks that count."""

    path: Path
    maps: dict[tuple[int, int], np.ndarray]


class Person:
    """One client: opens a picture, asks, looks, and now and then compares, downloads or forgets.

    Args:
        url: of the server.
        pictures: what it opens.
        found: gets what it sees.
    """

    def __init__(self, url: str, pictures: list[Picture], found: Found) -> None:
        # Without TLS there is nothing to verify, and the client would load certificates each call.
        self._client = Client(url, verbose=False, ssl_verify=False)
        self._pictures, self._found = pictures, found
        self._maps = pictures[0].maps
        self._ticked: list[int] = []

    def live(self, until: float, seed: int) -> None:
        """Look at pictures until the time is over, at one at least."""
        chance = np.random.default_rng(seed)
        try:
            self._visit(chance, until)
            while time.monotonic() < until:
                self._visit(chance, until)
        except Exception as error:  # whatever it is, it is an error that a person would see
            with self._found.lock:
                self._found.errors.append(f"{type(error).__name__}: {str(error)[:300]}")

    def _visit(self, chance: np.random.Generator, until: float) -> None:
        picture = self._pictures[chance.integers(len(self._pictures))]
        self._maps = picture.maps
        offered = self._open(picture.path)
        for round in range(3):
            if round and time.monotonic() >= until:
                return
            some = chance.permutation(offered)[: chance.integers(1, 4)]
            self._ask([int(index) for index in some])
            blocks = BLOCKS[chance.integers(len(BLOCKS))]
            self._look(blocks, float(chance.uniform(0, 0.9)), float(chance.uniform(0, 1)))
        rare = chance.integers(6)
        if rare == 0:
            self._compare()
        elif rare == 1:
            self._download(BLOCKS[chance.integers(len(BLOCKS))])
        elif rare == 2:
            self._timed("forget", api_name="/forget")

    def _open(self, path: Path) -> list[int]:
        shown = self._timed("open", handle_file(path), "", *_look(), api_name="/open_file")
        self._ticked = shown[4]["value"]
        self._check("open", tokens_in(shown[1]))
        return [index for _, index in shown[4]["choices"]]

    def _ask(self, ticked: list[int]) -> None:
        self._ticked = ticked
        shown = self._timed("ask", ticked, NOBODY[1], NOBODY[1], *_look(), api_name="/ask")
        self._check("ask", tokens_in(shown[1]))

    def _look(self, blocks: tuple[int, int], threshold: float, smoothing: float) -> None:
        look = _look(blocks, threshold, smoothing)
        shown = self._timed("look", *look, api_name="/redraw")
        self._check("look", tokens_in(shown[1]), blocks)

    def _compare(self) -> None:
        shown = self._timed("compare", list(OTHERS), *_look(), api_name="/compare")
        if shown[1].count('class="gt-heat"') != len(OTHERS) * len(self._ticked):
            self._note("compare: there is not a map for each method and class")

    def _download(self, blocks: tuple[int, int]) -> None:
        shown = self._timed("download", *_look(blocks), api_name="/pack")
        self._check("download", tokens_of(shown[1]), blocks)

    def _timed(self, what: str, *inputs: Any, api_name: str) -> Any:
        begun = time.monotonic()
        shown = self._client.predict(*inputs, api_name=api_name)
        self._found.add(what, time.monotonic() - begun)
        if (says := problem_in(shown[0])) is not None:
            raise RuntimeError(says)
        return shown

    def _check(self, what: str, tokens: np.ndarray, blocks: tuple[int, int] = BLOCKS[0]) -> None:
        expected = self._maps[blocks][self._ticked]
        if tokens.shape != expected.shape or not np.allclose(tokens, expected, 1e-3, 1e-5):
            self._note(f"{what}: maps of classes {self._ticked} are others")

    def _note(self, wrong: str) -> None:
        with self._found.lock:
            self._found.wrong.append(wrong)


def people(url: str, count: int, folder: Path, found: Found, model: Model) -> list[Person]:
    """Clients with two pictures each, and what their maps have to be."""
    scenes = Scenes("test", objects=2, seed=21)
    paths = [folder / f"{index}.png" for index in range(2 * count)]
    for index, path in enumerate(paths):
        scenes[index].image.save(path)
    maps = {}
    for first, last in BLOCKS:
        each = gradtoken.explain_each(model, paths, "all", layers=list(range(first - 1, last)))
        maps[first, last] = [one.tokens[0].numpy() for one in each]
    pictures = [
        Picture(path, {blocks: every[index] for blocks, every in maps.items()})
        for index, path in enumerate(paths)
    ]
    with ThreadPoolExecutor(8) as pool:
        own = [pictures[2 * index : 2 * index + 2] for index in range(count)]
        return list(pool.map(lambda two: Person(url, two, found), own))


def _look(
    blocks: tuple[int, int] = BLOCKS[0], threshold: float = 0, smoothing: float = 0
) -> tuple[Any, ...]:
    return (0.85, threshold, smoothing, FOR, *blocks)
