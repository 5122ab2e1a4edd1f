"""The local engine gives the same bytes however it decodes."""

from __future__ import annotations

from pathlib import Path

from tests.batch.conftest import shards, start


def test_bytes_do_not_depend_on_decoding_threads(folder: Path, tmp_path: Path) -> None:
    start(folder, tmp_path / "a")
    start(folder, tmp_path / "b", decoders=3)
    assert shards(tmp_path / "a") == shards(tmp_path / "b")
