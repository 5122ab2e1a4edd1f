"""Damage to bytes and to plain data, drawn from a generator."""

from __future__ import annotations

import math
import struct
from random import Random
from typing import Any

_NUMBERS = (0, 1, 2, 3, 255, 256, 65535, 65536, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_WORDS = (
    "",
    " ",
    "..",
    "../../x",
    "/etc/passwd",
    "a\0b",
    "con",
    "\udcff",
    "\u202egnp.exe",
    "\x1b[2J",
    "é" * 400,
    "x" * 5000,
    "9" * 5000,
    "-1",
    "1e999",
    "nan",
    "null",
    "0",
    "a\nb",
    "[bold]",
    "$x$",
    "%s",
    "{0}",
)


def damaged(data: bytes, rng: Random) -> bytes:
    """Bytes with a few changes: flips, lengths that lie, cuts, repeats and moves."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8, 40))):
        if not found:
            break
        at = rng.randrange(min(len(found), rng.choice((16, 64, 512, len(found)))))
        kind = rng.randrange(7)
        if kind == 0:
            found[at] = rng.randrange(256)
        elif kind == 1:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            number = struct.pack(
                rng.choice(("<I", ">I", "<Q", ">H", "<H")), rng.choice(_NUMBERS) & 0xFFFF
            )
            if rng.random() < 0.6:
                number = struct.pack(rng.choice(("<I", ">I")), rng.choice(_NUMBERS))
            found[at : at + len(number)] = number
        elif kind == 3:
            del found[at + rng.randrange(64) :]
        elif kind == 4:
            found[at:at] = rng.randbytes(rng.randrange(1, 32))
        elif kind == 5:
            del found[at : at + rng.randrange(1, 64)]
        else:
            end = at + rng.randrange(1, 256)
            found[at:at] = found[at:end] * rng.randrange(1, 4)
    return bytes(found)


def word(rng: Random) -> str:
    """A text that is awkward somewhere."""
    if rng.random() < 0.7:
        return rng.choice(_WORDS)
    return "".join(
        chr(rng.choice((rng.randrange(128), rng.randrange(0xD800))))
        for _ in range(rng.randrange(20))
    )


def value(rng: Random, depth: int = 0) -> Any:
    """Plain data of any kind."""
    kind = rng.randrange(10 if depth < 3 else 7)
    if kind == 0:
        return None
    if kind == 1:
        return rng.random() < 0.5
    if kind == 2:
        return rng.choice((*_NUMBERS, -1, -5, 10**30))
    if kind == 3:
        return rng.choice((0.0, -1.5, 0.5, 1e300, math.inf, math.nan))
    if kind in (4, 5, 6):
        return word(rng)
    if kind == 7:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {word(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def distorted(data: Any, rng: Random, depth: int = 0) -> Any:
    """Plain data with one part of it replaced, dropped or doubled."""
    inside = isinstance(data, (dict, list)) and len(data) > 0
    if not inside or rng.random() < 0.15 + 0.1 * depth:
        return value(rng)
    if isinstance(data, dict):
        key = rng.choice(list(data))
        if rng.random() < 0.15:
            return {k: v for k, v in data.items() if k != key}
        return {**data, key: distorted(data[key], rng, depth + 1)}
    at = rng.randrange(len(data))
    if rng.random() < 0.15:
        return data[:at] + data[at + 1 :]
    if rng.random() < 0.1:
        return [*data, data[at]]
    return [*data[:at], distorted(data[at], rng, depth + 1), *data[at + 1 :]]


def nested(rng: Random) -> str:
    """JSON that goes deeper than a parser's stack."""
    depth = rng.choice((50, 2000, 100_000))
    return rng.choice(("[" * depth, "[" * depth + "]" * depth, '{"a":' * depth))
