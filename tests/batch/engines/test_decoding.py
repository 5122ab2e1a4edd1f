"""Images that cannot be decoded become errors."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from tests.batch.conftest import start


def test_decoder_rejects_enormous_images(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bomb.png").write_bytes(bomb + chunk(b"IEND", b""))
    start(tmp_path / "in", tmp_path / "out")
    (row,) = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert "limit of 100,000,000" in row["error"]
