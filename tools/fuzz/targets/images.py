"""Bytes that claim to be a picture, in every format that Pillow writes."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from fuzz.mutate import damaged
from fuzz.target import Target
from gradtoken.images.load_image import SUFFIXES, load_image

_PIXELS = 250_000
"""The limit handed to `load_image`, small enough that pictures above it are drawn too."""

_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F")
_FORMATS = [
    "AVIF",
    "BMP",
    "DDS",
    "DIB",
    "EPS",
    "GIF",
    "ICNS",
    "ICO",
    "IM",
    "JPEG",
    "JPEG2000",
    "MPO",
    "MSP",
    "PCX",
    "PDF",
    "PNG",
    "PPM",
    "SGI",
    "SPIDER",
    "TGA",
    "TIFF",
    "WEBP",
    "XBM",
    "QOI",
]


@cache
def _seeds() -> list[tuple[str, bytes]]:
    """Sound pictures of every format and mode that Pillow writes here, some with several frames,
    palettes with transparency, and EXIF."""
    Image.init()
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (20, 28, 3), dtype=np.uint8))
    found = []
    for kind in _FORMATS:
        for mode in _MODES:
            options: list[dict[str, object]] = [{}]
            if kind in ("GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"):
                frames = (
                    [pixels.rotate(90).convert("RGB" if kind == "MPO" else mode)] * 2
                    if mode in ("L", "P", "RGB", "RGBA")
                    else []
                )
                options.append({"save_all": True, "append_images": frames})
            if kind in ("JPEG", "PNG", "WEBP", "TIFF"):
                exif = Image.Exif()
                exif[0x0112] = 6
                options.append({"exif": exif})
            if kind in ("PNG", "GIF") and mode in ("P", "L", "RGB"):
                options.append({"transparency": (1, 2, 3) if mode == "RGB" else 3})
            if kind == "TIFF":
                options += [{"compression": name} for name in ("tiff_lzw", "tiff_deflate")]
                options += [{"compression": "jpeg"}] if mode == "RGB" else []
            for chosen in options:
                buffer = io.BytesIO()
                try:
                    _as(pixels, mode).save(buffer, kind, **chosen)
                except Exception:
                    continue
                found.append((kind.lower(), buffer.getvalue()))
    assert len(found) > 80, len(found)
    return found


def _as(pixels: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(pixels.convert("L")).astype(np.uint16) * 257)
    if mode == "LAB":
        return Image.new("LAB", pixels.size, (120, 10, 20))
    return pixels.convert("L").convert(mode) if mode in ("LA", "I", "F") else pixels.convert(mode)


def _bomb(rng: Random) -> bytes:
    """A PNG, GIF, BMP or TIFF header that declares a huge picture, with little or much behind."""
    sides = [rng.choice((0, 1, 2, 500, 501, 20_000, 65_535, (1 << 31) - 1)) for _ in range(2)]
    kind = rng.randrange(4)
    if kind == 0:
        depth, colour = rng.choice(((1, 0), (8, 2), (16, 6), (8, 3), (16, 0)))
        head = struct.pack(">IIBBBBB", *sides, depth, colour, 0, 0, rng.randrange(2))
        body = zlib.compress(bytes(rng.choice((10, 100_000, 4_000_000))))
        parts = [(b"IHDR", head), (b"IDAT", body), (b"IEND", b"")]
        if rng.random() < 0.3:
            text = b"k\0\0" + zlib.compress(bytes(20_000_000))
            parts.insert(1, (rng.choice((b"zTXt", b"iCCP")), text))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))
            for tag, data in parts
        )
    if kind == 1:
        width, height = (side & 0xFFFF for side in sides)
        inner = [rng.choice((0, 1, 500, 65_535)) for _ in range(4)]
        return (
            b"GIF89a"
            + struct.pack("<HHBBB", width, height, 0xF0, 0, 0)
            + bytes(6)
            + b","
            + struct.pack("<HHHHB", *inner, 0)
            + b"\x02\x02\x4c\x01\x00;"
        )
    if kind == 2:
        bits = rng.choice((1, 4, 8, 16, 24, 32))
        head = struct.pack(
            "<IiiHHIIiiII",
            40,
            *(s & 0x7FFFFFFF for s in sides),
            1,
            bits,
            rng.randrange(4),
            0,
            1,
            1,
            0,
            0,
        )
        return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head + rng.randbytes(200)
    entries = [(256, 4, sides[0]), (257, 4, sides[1]), (258, 3, rng.choice((1, 8, 16, 32)))]
    entries += [(259, 3, rng.choice((1, 5, 7, 8, 32773))), (262, 3, rng.randrange(6))]
    entries += [(273, 4, 8), (277, 3, rng.choice((1, 3, 4))), (278, 4, sides[1]), (279, 4, 100)]
    block = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, number & 0xFFFFFFFF) for tag, kind, number in entries
    )
    return b"II*\0" + struct.pack("<I", 8) + block + bytes(4) + rng.randbytes(120)


def attempt(rng: Random, folder: Path) -> None:
    kind, data = rng.choice(_seeds())
    draw = rng.random()
    if draw < 0.2:
        kind, data = "png", _bomb(rng)
    elif draw < 0.25:
        data = rng.randbytes(rng.randrange(300))
    elif draw < 0.97:
        data = damaged(data, rng)
    path = folder / f"picture.{rng.choice((kind, *sorted(SUFFIXES))).lstrip('.')}"
    path.write_bytes(data)
    picture = load_image(path, max_pixels=_PIXELS)
    assert picture.mode == "RGB", picture.mode
    width, height = picture.size
    assert 1 <= width * height <= _PIXELS, picture.size
    picture.tobytes()


TARGET = Target(
    attempt, seconds=5, megabytes=64, instrumented=("gradtoken.images.load_image", "PIL")
)
