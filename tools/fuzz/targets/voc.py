"""Pascal VOC folders: the list of pictures, pictures, and palette masks."""

from __future__ import annotations

import io
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from fuzz import small
from fuzz.mutate import damaged, word
from fuzz.target import Target
from gradtoken.datasets.voc import VOC


def _mask(rng: Random) -> bytes:
    buffer = io.BytesIO()
    shape = rng.choice(((8, 12), (8, 12), (8, 12), (12, 8), (1, 1)))
    kind = rng.choice((np.uint8, np.uint8, np.uint8, np.uint16))
    numbers = (
        np.random.default_rng(rng.randrange(1 << 30))
        .choice([0, 8, 15, rng.choice((1, 20, 21, 255))], shape)
        .astype(kind)
    )
    image = Image.fromarray(numbers)
    if kind == np.uint8 and rng.random() < 0.7:
        image.putpalette(list(range(256)) * 3)
    image.save(buffer, "PNG")
    return buffer.getvalue()


def attempt(rng: Random, folder: Path) -> None:
    base = folder / rng.choice(("VOC2012", "VOCdevkit/VOC2012", "."))
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass", "SegmentationObject"):
        (base / name).mkdir(parents=True)
    (folder / "secret.jpg").write_bytes(small.picture("JPEG"))
    (folder / "secret.png").write_bytes(_mask(rng))
    data = {
        "JPEGImages/a.jpg": small.picture("JPEG"),
        "SegmentationClass/a.png": _mask(rng),
        "SegmentationObject/a.png": _mask(rng),
    }
    for name, content in data.items():
        if rng.random() < 0.97:
            (base / name).write_bytes(damaged(content, rng) if rng.random() < 0.4 else content)
    draw = rng.random()
    listed = b"a\n"
    if draw < 0.15:
        listed = word(rng).encode("utf-8", "surrogatepass")
    elif draw < 0.25:
        listed = rng.choice((b"", b"\xff\xfe", b"../../secret", b"../../../secret", b"a/../a"))
    (base / "ImageSets/Segmentation/val.txt").write_bytes(listed)
    for sample in VOC(folder, instances=rng.random() < 0.5):
        assert "secret" not in sample.id
        assert sample.masks is not None
        assert sample.masks.shape[1:] == sample.image.size[::-1]
        assert len(sample.names) == len(sample.masks)


TARGET = Target(attempt, seconds=5, megabytes=64, instrumented=("gradtoken.datasets",))
