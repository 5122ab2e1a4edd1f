"""Shards are written whole, until too many images failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradtoken.errors import DatasetError
from tests.batch.conftest import start


def test_max_errors_stops_a_run_that_can_be_resumed(folder: Path, tmp_path: Path) -> None:
    for name in ("005.png", "006.png"):
        (folder / name).write_bytes(b"")
    with pytest.raises(DatasetError, match=r"3 images could not .* more than --max-errors 1"):
        start(folder, tmp_path / "out", max_errors=1, decoders=1)
    assert start(folder, tmp_path / "out", resume=True).errors == 3
