"""Bytes of images, or errors."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from pyarrow import parquet

from gradtoken.batch.sources.fetch import fetch
from gradtoken.errors import DatasetError
from tests.batch.conftest import list_source, table


def test_fetch_returns_errors_for_changed_and_missing_images(folder: Path) -> None:
    items = list_source(folder)
    (folder / "000.png").write_bytes(b"shorter")
    (folder / "001.png").unlink()
    results = [content for _, content in fetch(items[:2], {}, None)]
    assert "has changed since the run was planned" in str(results[0])
    assert "does not exist" in str(results[1])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_fetch_rejects_pipes_and_devices(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    results = [content for _, content in fetch(list_source(tmp_path), {}, None)]
    assert len(results) == 2
    assert all("is a pipe, device or folder" in str(error) for error in results)
    for name in ("a.tar", "a.parquet", "a.csv"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DatasetError, match="is a pipe, device or folder"):
            list_source(tmp_path / name)
    (tmp_path / "hf").mkdir()
    os.mkfifo(tmp_path / "hf" / "state.json")
    with pytest.raises(DatasetError, match="lists no data files"):
        list_source(tmp_path / "hf")


def test_fetch_returns_errors_for_damaged_rows(tmp_path: Path, contents: list[bytes]) -> None:

    path = tmp_path / "p.parquet"
    whole = table(contents)
    parquet.write_table(whole, path, row_group_size=5, compression="NONE", use_dictionary=False)
    items = list_source(path)
    damaged = path.read_bytes().replace(
        contents[7][:200], hashlib.sha256(b"").digest() * 6 + b"12345678"
    )
    path.write_bytes(damaged)
    results = [content for _, content in fetch(items, {}, None)]
    assert results[:5] == contents[:5]
    assert results[7] != contents[7]
