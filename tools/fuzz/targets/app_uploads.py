"""What is uploaded to the web app, and the paths that a request says it was uploaded to."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from random import Random

from fuzz import small
from fuzz.mutate import damaged, word
from fuzz.target import Target
from gradtoken.app.limits import Limits
from gradtoken.app.pictures import Uploads
from gradtoken.errors import ImageError

_LIMITS = Limits(file_bytes=4000, pixels=10_000)


def _content(rng: Random) -> bytes:
    kind = rng.choice(("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "EPS", "PPM", "ICO", "TGA"))
    found = small.picture(kind, *rng.choice(((12, 8), (32, 32), (150, 90))))
    draw = rng.random()
    if draw < 0.5:
        return damaged(found, rng)
    if draw < 0.55:
        return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1 << 30, 1 << 30)
    if draw < 0.6:
        return found + bytes(5000)
    return found if draw < 0.95 else b""


def _path(uploads: Path, outside: Path, mine: Path, rng: Random) -> str:
    draw = rng.random()
    if draw < 0.6:
        return str(mine)
    return rng.choice(
        (
            str(outside / "kept.png"),
            str(uploads / ".." / "outside" / "kept.png"),
            str(uploads / "link.png"),
            str(uploads),
            str(uploads / "0a"),
            "/dev/zero",
            "/etc/passwd",
            "",
            word(rng),
            str(uploads / word(rng)),
        )
    )


def attempt(rng: Random, folder: Path) -> None:
    uploads, outside = folder / "uploads", folder / "outside"
    mine = uploads / "0a" / "mine.png"
    mine.parent.mkdir(parents=True)
    outside.mkdir()
    (outside / "kept.png").write_bytes(small.picture("PNG"))
    (uploads / "link.png").symlink_to(outside / "kept.png")
    if rng.random() < 0.05:
        os.mkfifo(mine)
    else:
        mine.write_bytes(_content(rng))
    asked = _path(uploads, outside, mine, rng)
    taken = Uploads(uploads, _LIMITS)
    try:
        source = taken.take(asked)
        assert asked == str(mine), "a file was read that was not uploaded"
        assert source.image.mode == "RGB"
        assert source.image.width * source.image.height <= _LIMITS.pixels
    except ImageError as error:
        if str(uploads) in str(error) and str(uploads) not in asked:
            raise AssertionError("the server's folder is told") from error
        raise
    finally:
        assert (outside / "kept.png").read_bytes() == small.picture("PNG")
        if asked == str(mine) and not mine.is_fifo():
            assert not mine.exists(), "an upload was kept"
            assert not mine.parent.exists()


TARGET = Target(attempt, seconds=5, megabytes=64)
