"""The bundled sprites: drawings of the same objects in ten styles."""

from __future__ import annotations

import functools
import io
import json
import zipfile
from dataclasses import dataclass
from importlib import resources
from typing import Any

from PIL import Image, ImageDraw

LEVELS = (128, 90, 64, 45, 32)
PAD = 2
MONOCHROME = frozenset({"emojione-monotone", "fluent-emoji-high-contrast"})


@dataclass(frozen=True)
class Level:
    """One size of a sprite, with a transparent border ``PAD`` pixels wide.

    ``image`` is RGBA (h, w). ``solid`` is the same silhouette with its holes filled, an L image
    (h, w) of 0 and 255, kept for monochrome line drawings only.
    """

    image: Image.Image
    solid: Image.Image | None


@dataclass(frozen=True)
class Sprite:
    """One object in one style; ``levels`` run from large to small."""

    label: int
    style: str
    levels: tuple[Level, ...]

    def level(self, extent: float) -> Level:
        """The smallest level whose longer side is still at least ``extent`` pixels."""
        for level in reversed(self.levels):
            if max(level.image.size) - 2 * PAD >= extent:
                return level
        return self.levels[0]


def archive_bytes() -> bytes:
    """The bundled archive as it lies in the package."""
    return (resources.files("gradtoken.datasets") / "assets" / "sprites.zip").read_bytes()


@functools.cache
def index() -> dict[str, Any]:
    """The archive's ``index.json``: concepts, styles, the origin and licence of every sprite."""
    with zipfile.ZipFile(io.BytesIO(archive_bytes())) as archive:
        return json.loads(archive.read("index.json"))


def concepts() -> tuple[str, ...]:
    """Names of the objects; the position of a name is its class id."""
    return tuple(index()["concepts"])


@functools.cache
def load(split: str) -> tuple[tuple[Sprite, ...], ...]:
    """Sprites of one split by class id: the test style for "test", all others for "train"."""
    test_style = index()["test_style"]
    names = concepts()
    sprites: list[list[Sprite]] = [[] for _ in names]
    with zipfile.ZipFile(io.BytesIO(archive_bytes())) as archive:
        for entry in index()["sprites"]:
            if (entry["style"] == test_style) != (split == "test"):
                continue
            with Image.open(io.BytesIO(archive.read(entry["file"]))) as opened:
                image = opened.convert("RGBA")
            label = names.index(entry["concept"])
            levels = _levels(image, entry["style"] in MONOCHROME)
            sprites[label].append(Sprite(label, entry["style"], levels))
    return tuple(map(tuple, sprites))


def _levels(image: Image.Image, monochrome: bool) -> tuple[Level, ...]:
    """``image`` at every size of ``LEVELS`` it is large enough for."""
    levels = []
    for size in LEVELS:
        small = image.copy()
        small.thumbnail((size, size), Image.Resampling.LANCZOS)
        padded = Image.new("RGBA", (small.width + 2 * PAD, small.height + 2 * PAD))
        padded.paste(small, (PAD, PAD))
        levels.append(Level(padded, _solid(padded) if monochrome else None))
    return tuple(levels)


def _solid(image: Image.Image) -> Image.Image:
    """The silhouette of ``image`` without holes: everything not reachable from its corner."""
    outside = image.getchannel("A").point(lambda alpha: 255 if alpha > 100 else 0)
    ImageDraw.floodfill(outside, (0, 0), 128)
    return outside.point(lambda value: 0 if value == 128 else 255)
