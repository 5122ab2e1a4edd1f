"""The listing of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradtoken.batch import Columns, Source
from gradtoken.errors import DatasetError, OutputError
from tests.batch.conftest import shards, start, write_parquet


def test_resume_rejects_damaged_listing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    start(folder, out)
    before = shards(out)
    (out / "data" / "00000001.parquet").unlink()
    listing = out / "listing" / "000000.parquet"
    listing.write_bytes(listing.read_bytes()[:-20])
    with pytest.raises(OutputError, match=r"000000.parquet is damaged; start the run anew"):
        start(folder, out, resume=True)
    assert shards(out) == {n: c for n, c in before.items() if n != "00000001.parquet"}


def test_write_plan_rejects_repeated_ids(tmp_path: Path, contents: list[bytes]) -> None:
    path = write_parquet(tmp_path / "p.parquet", contents)
    with pytest.raises(DatasetError, match="ids are not unique: that of image 3 came before"):
        start(Source(str(path), columns=Columns(id="label")), tmp_path / "out")
