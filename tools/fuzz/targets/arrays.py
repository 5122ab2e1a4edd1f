"""Arrays, tensors and other objects handed to `explain` as pictures."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

import gradtoken
from fuzz import small
from fuzz.mutate import value
from fuzz.target import Target

_DTYPES = [
    "u1",
    "u2",
    "u4",
    "u8",
    "i1",
    "i2",
    "i4",
    "i8",
    "f2",
    "f4",
    "f8",
    "g",
    "c8",
    "c16",
    "?",
    "O",
    "S3",
    "U2",
    "M8[s]",
    "m8[s]",
    "V4",
    ">u2",
    ">f4",
    ">f8",
]
_TORCH = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.uint8,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.uint16,
)
_SHAPES = (
    (16, 16),
    (3, 16, 16),
    (16, 16, 3),
    (16, 16, 4),
    (16, 16, 1),
    (1, 3, 16, 16),
    (2, 3, 16, 16),
    (16, 16, 12),
    (17, 40, 12),
    (2, 12, 16, 16),
)


def _shape(rng: Random) -> tuple[int, ...]:
    if rng.random() < 0.6:
        return rng.choice(_SHAPES)
    return tuple(rng.choice((0, 1, 2, 3, 4, 16, 17, 40)) for _ in range(rng.randrange(6)))


def _array(rng: Random) -> Any:
    shape, kind = _shape(rng), rng.choice(("u1", "u1", "f4", "f8", "u2", *_DTYPES))
    count = int(np.prod(shape, dtype=int))
    if count > 1 << 20:
        shape, count = (4, 4), 16
    source = np.random.default_rng(rng.randrange(1 << 30))
    numbers = source.random(count).reshape(shape)
    scale = rng.choice((1, 1, 255, 65535, -1, 1e30))
    if kind == "?":
        found = numbers > 0.5
    elif kind in ("S3", "U2", "V4", "O", "M8[s]", "m8[s]"):
        found = np.zeros(shape, dtype=kind)
    else:
        with np.errstate(all="ignore"):
            found = (numbers * (255 if kind == "u1" else scale)).astype(kind)
    if found.size and found.dtype.kind == "f" and rng.random() < 0.2:
        found.reshape(-1)[0] = rng.choice((np.nan, np.inf, -np.inf, -1e-9, 1 + 1e-9))
    draw = rng.random()
    if draw < 0.1 and found.ndim:
        return found[::-1]
    if draw < 0.15:
        return np.ma.masked_array(found, mask=np.ones(shape, bool))
    if draw < 0.2:
        return found.astype(found.dtype).T
    if draw < 0.25:
        return np.broadcast_to(np.zeros((), found.dtype), (100_000, 100_000, 3))
    return found


def _tensor(rng: Random) -> Any:
    shape, kind = _shape(rng), rng.choice((torch.float32, torch.float32, *_TORCH))
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    found: Any = torch.randn(shape, generator=generator).to(kind)
    draw = rng.random()
    if draw < 0.1 and kind == torch.float32 and found.numel():
        found.view(-1)[0] = rng.choice((float("nan"), float("inf"), 1e38, -1e38))
    elif draw < 0.15:
        return found.to("meta")
    elif draw < 0.2 and kind == torch.float32:
        return found.to_sparse()
    elif draw < 0.25 and kind == torch.float32:
        return found.requires_grad_()
    elif draw < 0.3:
        return torch.zeros((), dtype=kind).expand(1, 3, 1 << 17, 1 << 17)
    elif draw < 0.33 and kind == torch.float32:
        with torch.inference_mode():
            return found + 1
    elif draw < 0.36 and found.ndim:
        return torch.nested.nested_tensor([torch.zeros(3, 16, 16), torch.zeros(3, 8, 8)])
    elif draw < 0.4:
        return torch.quantize_per_tensor(torch.zeros(3, 16, 16), 1.0, 0, torch.quint8)
    return found


def _picture(rng: Random) -> Any:
    mode = rng.choice(
        (
            "1",
            "L",
            "LA",
            "La",
            "P",
            "PA",
            "RGB",
            "RGBA",
            "RGBa",
            "RGBX",
            "CMYK",
            "YCbCr",
            "LAB",
            "HSV",
            "I",
            "I;16",
            "I;16B",
            "F",
        )
    )
    size = rng.choice(((16, 16), (1, 1), (0, 4), (4, 0), (40, 9), (3000, 2), (1, 60_000)))
    found = Image.new(mode, size)
    if rng.random() < 0.3:
        found.info["transparency"] = value(rng)
    if rng.random() < 0.2:
        found.info["exif"] = rng.randbytes(rng.randrange(30))
    if rng.random() < 0.1:
        found.close()
    return found


def _one(rng: Random) -> Any:
    return rng.choice((_array, _tensor, _picture, _picture, value))(rng)


def attempt(rng: Random, folder: Path) -> None:
    given = [_one(rng) for _ in range(rng.randrange(4))] if rng.random() < 0.3 else _one(rng)
    model = small.deep_model() if rng.random() < 0.25 else small.model()
    found = gradtoken.explain(model, given, 1)
    assert bool(torch.isfinite(found.tokens).all())
    assert len(found.sources) == len(found)
    assert [source.image.mode for source in found.sources] == ["RGB"] * len(found)


TARGET = Target(attempt, seconds=10, megabytes=128)
