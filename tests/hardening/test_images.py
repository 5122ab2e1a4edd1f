"""Pictures that want something else than to be looked at."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz.target import peak, reset_peak
from PIL import Image

import gradtoken
from gradtoken.datasets.image_files import inside, read_image
from gradtoken.errors import DatasetError, GradTokenError, ImageError, one_line
from gradtoken.images.load_image import load_image
from gradtoken.images.source import Source
from gradtoken.models import Model


def _png(width: int, height: int, depth: int, colour: int, body: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))
        for tag, data in parts
    )


def test_load_image_runs_no_postscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    path = tmp_path / "picture.png"
    Image.new("RGB", (8, 8), "red").save(path, "EPS")
    with Image.open(path) as image:
        assert image.format == "EPS"
    for given in (path, path.read_bytes()):
        with pytest.raises(ImageError, match="is not an image in a format"):
            load_image(given)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_load_image_does_not_wait_for_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(ImageError, match="is a pipe or device"):
            load_image(path)


def test_load_image_rejects_declared_size_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    for size in ((65_535, 65_535), (1 << 31, 1 << 31), (11_000, 10_000)):
        path.write_bytes(_png(*size, 8, 2))
        with pytest.raises(ImageError):
            load_image(path)
        with pytest.raises(DatasetError, match="cannot be read"):
            read_image(path)


def test_load_image_of_16_bits_makes_no_floats(tmp_path: Path) -> None:
    peak = _peak_of(tmp_path, "I;16")
    assert peak < 40 * 4_000_000 / 2**20


def _peak_of(tmp_path: Path, mode: str) -> float:
    """Megabytes that numpy allocates for an image of four million pixels."""
    import tracemalloc

    path = tmp_path / "deep.png"
    Image.new(mode, (2000, 2000), 30_000).save(path)
    tracemalloc.start()
    try:
        assert load_image(path).getpixel((0, 0)) == (117, 117, 117)
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from /proc")
@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGBA", "webp"), ("RGBA", "png"), ("I;16", "png"), ("F", "tif")]
)
def test_load_image_takes_at_most_30_bytes_per_pixel(
    tmp_path: Path, mode: str, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new(mode, (3000, 3000)).save(path)
    before = reset_peak()
    load_image(path)
    assert peak() - before < 30 * 9_000_000 / 2**20


def test_source_hashes_long_file(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "long.png"
    Image.new("RGB", (8, 8)).save(path)
    with path.open("ab") as file:
        file.write(bytes(3 << 20))
    assert Source.read(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_source_rejects_file_removed_while_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.png"
    Image.new("RGB", (8, 8)).save(path)

    def read_and_remove(given: Path) -> Image.Image:
        picture = load_image(given)
        path.unlink()
        return picture

    monkeypatch.setattr("gradtoken.images.source.load_image", read_and_remove)
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        Source.read(path)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (lambda: torch.zeros(1, 3, 64, 64, device="meta"), "sparse, nested, quantised or meta"),
        (lambda: torch.zeros(1, 3, 64, 64).to_sparse(), "sparse, nested, quantised or meta"),
        (lambda: torch.zeros(()).expand(1, 3, 1 << 17, 1 << 17), "above the limit of 100,000,000"),
        (lambda: torch.zeros(1, 3, 64, 64).to(torch.float8_e4m3fn), "is not preprocessed"),
    ],
)
def test_explain_rejects_odd_tensors(model: Model, tensor: object, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        gradtoken.explain(model, tensor(), 1)


def test_load_image_accepts_masked_array(model: Model) -> None:
    plain = np.eye(8, dtype=bool)
    assert load_image(np.ma.masked_array(plain, mask=plain)) == load_image(plain)


@pytest.mark.parametrize("name", ["../x.png", "/etc/passwd", "a/../../x.png", "a\0b", "", None, 3])
def test_inside_rejects_names_outside_folder(tmp_path: Path, name: object) -> None:
    with pytest.raises(DatasetError, match="no file name within"):
        inside(tmp_path, name)
    assert inside(tmp_path, "a/b.png") == tmp_path / "a" / "b.png"


def test_error_is_one_printable_line() -> None:
    error = GradTokenError("a\nb \x1b[2J\u202e " + "x" * 5000)
    assert str(error).startswith("a b \ufffd[2J\ufffd xx")
    assert len(str(error)) < 1100
    assert one_line("é, ß and 漢字 stay") == "é, ß and 漢字 stay"
