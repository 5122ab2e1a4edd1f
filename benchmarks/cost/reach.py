"""What was to be reached, and what was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.cost.methods import HALF
from benchmarks.cost.peers import ONE_BLOCK

Results = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Reach:
    """One metric. `at_most` says which side of `limit` is the good one."""

    metric: str
    limit: float
    reached: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        return self.reached <= self.limit if self.at_most else self.reached >= self.limit


def reaches(results: Results) -> list[Reach]:
    """The metrics that the results at hand can tell."""
    return [reach for tell in _TELL for reach in tell(results)]


def _one_target(results: Results) -> Iterator[Reach]:
    for batch, limit in ((16, 1.15), (1, 1.25)):
        for row in _quickest(results, batch):
            if row["method"] == "gradtoken":
                yield Reach(f"one target ÷ forward, time, batch {batch}", limit, row["time"])
                yield Reach(f"one target ÷ forward, peak memory, batch {batch}", 1.3, row["memory"])


def _half(results: Results) -> Iterator[Reach]:
    for batch, limit in ((16, 1.15), (1, 1.25)):
        for row in _quickest(results, batch):
            if row["method"] == HALF:
                yield Reach(f"the same with layers=half, time, batch {batch}", limit, row["time"])
                name = f"the same with layers=half, peak memory, batch {batch}"
                yield Reach(name, 1.3, row["memory"])


def _many_targets(results: Results) -> Iterator[Reach]:
    for row in results.get("targets", []):
        if row["targets"] in (10, 1000):
            limit = {10: 1.4, 1000: 10.0}[row["targets"]]
            yield Reach(f"{row['targets']} targets ÷ forward, time", limit, row["time"])


def _operations(results: Results) -> Iterator[Reach]:
    for row in results.get("operations", []):
        if row["what"] == "1 target(s)":
            yield Reach("counted operations, one target ÷ forward", 1.05, row["ratio"])


def _files(results: Results) -> Iterator[Reach]:
    for row in results.get("files", []):
        if row["model"] == "ViT-B/16":
            name = f"from JPEG ÷ plain inference, images/s, {row['workers']} workers"
            yield Reach(name, 0.85, row["ratio"], at_most=False)


def _peers(results: Results) -> Iterator[Reach]:
    for batch in (1, 16):
        rows = [row for row in _quickest(results, batch) if "time" in row]
        ours = [row["seconds"] for row in rows if row["method"] == "gradtoken"]
        whole = [
            row["seconds"]
            for row in rows
            if not row["ours"] and row["method"] not in {"forward", *ONE_BLOCK}
        ]
        block = [row["seconds"] for row in rows if row["method"] in ONE_BLOCK]
        if ours and whole:
            name = f"fastest peer through all blocks ÷ ours, batch {batch}"
            yield Reach(name, 2.0, min(whole) / ours[0], at_most=False)
        if ours and block:
            name = f"fastest peer of the last block alone ÷ ours, batch {batch}"
            yield Reach(name, 2.0, min(block) / ours[0], at_most=False)


def _start(results: Results) -> Iterator[Reach]:
    seconds = {row["what"]: row["seconds"] for row in results.get("startup", [])}
    if seconds:
        bare = seconds["python -c pass"]
        yield Reach("`import gradtoken`, seconds", 0.3, seconds["import gradtoken"] - bare)
        used = seconds["import torch, timm, gradtoken; gradtoken.explain"]
        full = used - seconds["import torch, timm"]
        yield Reach("`gradtoken.explain` at hand, after `import torch, timm`, seconds", 0.3, full)
        yield Reach("`gradtoken --help`, seconds", 0.5, seconds["gradtoken --help"])


def _quickest(results: Results, batch: int) -> list[dict[str, Any]]:
    rows = results.get("quickest", [])
    return [row for row in rows if row["model"] == "ViT-B/16" and row["batch"] == batch]


_TELL: list[Callable[[Results], Iterator[Reach]]] = [
    _one_target,
    _half,
    _many_targets,
    _operations,
    _files,
    _peers,
    _start,
]
