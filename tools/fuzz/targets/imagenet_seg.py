"""ImageNet-Segmentation's MATLAB file: HDF5 with references, links and sizes that lie."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np

from fuzz.mutate import damaged
from fuzz.target import Target
from gradtoken.datasets.imagenet_seg import ImageNetSegmentation


@cache
def _sound() -> bytes:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.mat"
        _write(path, Random(0), odd=0.0)
        return path.read_bytes()


def _data(place: Any, name: str, rng: Random, shape: tuple[int, ...], odd: float) -> Any:
    draw = rng.random() / odd if odd else 1.0
    if draw < 0.15:
        huge = tuple(rng.choice((1, 1 << 20, 1 << 34)) for _ in shape)
        return place.create_dataset(name, huge, dtype="u1", chunks=(1,) * len(shape))
    if draw < 0.3:
        outside = [("/etc/passwd", 0, int(np.prod(shape)))]
        return place.create_dataset(name, shape, dtype="u1", external=outside)
    if draw < 0.45:
        layout = h5py.VirtualLayout(shape=shape, dtype="u1")
        layout[...] = h5py.VirtualSource("/etc/passwd", "x", shape=shape)
        return place.create_virtual_dataset(name, layout)
    if draw < 0.6:
        kind = rng.choice(("S4", "f8", "i8", "c16", h5py.string_dtype()))
        return place.create_dataset(name, shape, dtype=kind)
    if draw < 0.75:
        return place.create_dataset(name, shape[:-1], dtype="u1")
    if draw < 0.9:
        return place.create_group(name)
    return place.create_dataset(name, data=np.ones(shape, np.uint8))


def _write(path: Path, rng: Random, odd: float) -> None:
    with h5py.File(path, "w") as file:
        value, refs = file.create_group("value"), file.create_group("#refs#")
        draw = rng.random() / odd if odd else 1.0
        if draw < 0.1:
            value["img"] = h5py.ExternalLink("other.h5", "/x")
        elif draw < 0.2:
            value["img"] = h5py.SoftLink(rng.choice(("/value/img", "/nowhere", "/value")))
        elif draw < 0.3:
            value.create_dataset("img", (1 << 40, 1), dtype=h5py.ref_dtype, chunks=(1, 1))
        else:
            images = value.create_dataset("img", (1, 1), dtype=h5py.ref_dtype)
            if odd == 0 or rng.random() > 0.1:
                images[0, 0] = _data(refs, "img", rng, (3, 9, 6), odd).ref
        masks = value.create_dataset("gt", (1, 1), dtype=h5py.ref_dtype)
        cell = refs.create_dataset("cell", (1, 1), dtype=h5py.ref_dtype)
        cell[0, 0] = _data(refs, "mask", rng, (9, 6), odd).ref
        masks[0, 0] = (cell if odd == 0 or rng.random() > 0.1 else masks).ref


def attempt(rng: Random, folder: Path) -> None:
    path = folder / "gtsegs_ijcv.mat"
    if rng.random() < 0.5:
        _write(path, rng, odd=0.7)
    else:
        path.write_bytes(damaged(_sound(), rng))
    samples = ImageNetSegmentation(path)
    for index in range(min(len(samples), 3)):
        sample = samples[index]
        assert sample.masks is not None
        assert sample.masks.shape[1:] == sample.image.size[::-1]


TARGET = Target(attempt, seconds=5, megabytes=128, instrumented=("gradtoken.datasets",))
