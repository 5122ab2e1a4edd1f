"""COCO's list of instances: JSON with polygons and run lengths that end up in C."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

from fuzz import small
from fuzz.mutate import damaged, distorted, nested, word
from fuzz.target import Target
from gradtoken.datasets.coco import COCO


def _number(rng: Random) -> Any:
    far = (-1, 12, 13, 1e9, -1e9, 1e300, math.nan, math.inf, (1 << 31) - 1, 1 << 40, "1", None)
    return rng.uniform(0, 12) if rng.random() < 0.93 else rng.choice(far)


def _segmentation(rng: Random) -> Any:
    kind = rng.randrange(4)
    size = [8, 12] if rng.random() < 0.9 else rng.choice(([12, 8], [0, 0], [1 << 20] * 2, [8], 8))
    if kind == 0:
        corners = rng.choice((6, 8, 8, 12, 4, 7, 0))
        return [[_number(rng) for _ in range(corners)] for _ in range(rng.choice((1, 1, 2, 0)))]
    if kind == 1:
        runs = [rng.randrange(20) for _ in range(rng.randrange(6))]
        if rng.random() < 0.7 and sum(runs) <= 96:
            runs.append(96 - sum(runs))
        if rng.random() < 0.2:
            runs.append(rng.choice((-1, 1 << 31, 1 << 32, (1 << 32) - 96, 96, 1.5, None)))
        return {"size": size, "counts": runs}
    if kind == 2:
        from pycocotools import mask

        runs = sorted(rng.randrange(96) for _ in range(4))
        counts = [b - a for a, b in zip([0, *runs], [*runs, 96], strict=True)]
        text = mask.frPyObjects({"size": [8, 12], "counts": counts}, 8, 12)["counts"]
        if rng.random() < 0.5:
            text = damaged(text, rng)
        return {"size": size, "counts": text.decode("latin-1")}
    return {"size": size, "counts": word(rng)}


def attempt(rng: Random, folder: Path) -> None:
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    (folder / "val2017" / "a.jpg").write_bytes(small.picture("JPEG"))
    (folder / "secret.jpg").write_bytes(small.picture("JPEG"))
    name = "a.jpg"
    if rng.random() < 0.1:
        name = rng.choice(
            ("../secret.jpg", str(folder / "secret.jpg"), "x/../../secret.jpg", word(rng))
        )
    record: Any = {
        "images": [{"id": 9, "file_name": name, "width": 12, "height": 8}],
        "categories": [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}],
        "annotations": [
            {
                "id": number,
                "image_id": 9,
                "category_id": rng.choice((1, 17, 17, 99)) if rng.random() < 0.1 else 17,
                "segmentation": _segmentation(rng),
                "iscrowd": rng.randrange(2),
            }
            for number in range(rng.randrange(3))
        ],
    }
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        record = distorted(record, rng)
    text = json.dumps(record)
    if rng.random() < 0.02:
        text = nested(rng)
    data = text.encode("utf-8", "replace")
    if rng.random() < 0.1:
        data = damaged(data, rng)
    (folder / "annotations" / "instances_val2017.json").write_bytes(data)
    for sample in COCO(folder, instances=rng.random() < 0.5):
        assert sample.id != "secret"
        assert sample.masks is not None
        assert sample.masks.shape[1:] == sample.image.size[::-1]
        assert len(sample.names) == len(sample.masks)


TARGET = Target(
    attempt, seconds=5, megabytes=64, instrumented=("gradtoken.datasets", "pycocotools")
)
