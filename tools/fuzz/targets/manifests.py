"""Results saved over folders that someone else prepared, under names that someone else chose."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

import gradtoken
from fuzz import small
from fuzz.mutate import damaged, distorted, nested, word
from fuzz.target import Target
from gradtoken import Explanation
from gradtoken.explanation.saving import MANIFEST
from gradtoken.images.source import Source

_FILES = ("summary.png", "tokens.npz", MANIFEST)


@cache
def _explanation() -> Explanation:
    picture = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
    return gradtoken.explain(small.model(), [picture, picture], [0, 1])


class _Drawn:
    """Stands in for a figure, which takes most of the time and nothing from outside but titles."""

    def savefig(self, path: Path, **_: Any) -> None:
        path.write_bytes(b"figure")


def _named(rng: Random) -> Explanation:
    from dataclasses import replace

    found = _explanation()
    labels = [[word(rng) for _ in range(2)] for _ in range(2)]
    paths = [
        rng.choice((None, Path("a.png"), Path("A.jpg"), Path(word(rng).replace("\0", "") or "x")))
        for _ in range(2)
    ]
    sources = [
        Source(s.image, p, s.kind, "0" if p else None)
        for s, p in zip(found.sources, paths, strict=True)
    ]
    made = replace(found, labels=labels, sources=sources)
    return made if rng.random() < 0.5 else made[0]


def _prepare(folder: Path, outside: Path, rng: Random) -> None:
    """An earlier result, sound or hostile: its manifest lists what is not its own."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = [word(rng) for _ in range(3)] + [
        "00_old.png",
        str(outside / "kept.png"),
        "../outside/kept.png",
    ]
    (folder / "00_old.png").write_text("old")
    record: Any = {"files": {"overlays": listed, "summary": "summary.png"}, "targets": []}
    for _ in range(rng.randrange(3)):
        record = distorted(record, rng)
    data = json.dumps(record).encode("utf-8", "replace")
    draw = rng.random()
    if draw < 0.1:
        data = nested(rng).encode()
    elif draw < 0.3:
        data = damaged(data, rng)
    manifest = folder / MANIFEST
    draw = rng.random()
    if draw < 0.7:
        manifest.write_bytes(data)
    elif draw < 0.78:
        manifest.symlink_to(outside / "kept.png")
    elif draw < 0.82:
        manifest.symlink_to("/dev/zero")
    elif draw < 0.86:
        os.mkfifo(manifest)
    elif draw < 0.9:
        manifest.mkdir()
    for name in ("00_cat.png", "00_old.png", *_FILES):
        if rng.random() < 0.1:
            place = folder / name
            if not (place.exists() or place.is_symlink()):
                rng.choice((place.symlink_to, lambda t, p=place: p.symlink_to(t / "kept.png")))(
                    outside
                )


def attempt(rng: Random, folder: Path) -> None:
    outside, out = folder / "outside", folder / "out"
    outside.mkdir()
    (outside / "kept.png").write_text("kept")
    (outside / MANIFEST).write_text(json.dumps({"files": {"overlays": ["kept.png"]}}))
    explanation = _named(rng)
    where = out
    if len(explanation) > 1 and rng.random() < 0.5:
        where = out / "a"
        if rng.random() < 0.3:
            out.mkdir()
            where.symlink_to(outside, target_is_directory=True)
    if not where.is_symlink():
        _prepare(where, outside, rng)
    drawn = Explanation.figure
    Explanation.figure = lambda self, **_: _Drawn()  # type: ignore[method-assign, assignment]
    try:
        folders = explanation.save(out / word(rng) if rng.random() < 0.1 else out)
    finally:
        Explanation.figure = drawn  # type: ignore[method-assign]
        assert (outside / "kept.png").read_text() == "kept"
        assert sorted(p.name for p in outside.iterdir()) == ["kept.png", MANIFEST]
    for one in folders:
        manifest = json.loads((one / MANIFEST).read_text("utf-8"))
        for name in (*manifest["files"]["overlays"], *_FILES):
            place = one / name
            assert place.parent.resolve() == one.resolve(), place
            assert place.is_file(), place
            assert not place.is_symlink(), place


TARGET = Target(attempt, seconds=10, megabytes=64)
