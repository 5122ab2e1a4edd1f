"""Records on disk: written whole, read again, never mixed with another run's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from gradtoken.bench.store import COLUMNS, Record, Store
from gradtoken.errors import OutputError

SETTINGS = {"model": "demo", "methods": {"gae": {}}}
RECORDS = [
    Record("a/b c.png", "cat", "gae", "share", 0.5),
    Record("a/b c.png", "dog", "gae", "share", float("nan")),
    Record("a/b c.png", "cat", "rollout", "energy", 0.25),
]


def test_store_reads_added_records(tmp_path: Path) -> None:
    store = Store(tmp_path, SETTINGS)
    assert not store.done("a/b c.png")
    store.add("a/b c.png", RECORDS)
    store.add("empty", [])
    again = Store(tmp_path, SETTINGS)
    assert again.done("a/b c.png")
    assert again.done("empty")
    records = again.read(["a/b c.png", "empty"])
    assert records.methods() == ["gae", "rollout"]
    assert records.metrics() == ["share", "energy"]
    values = records.where(method="gae", metric="share").by_instance()
    assert values["a/b c.png", "cat"] == 0.5
    assert np.isnan(values["a/b c.png", "dog"])
    (path,) = [p for p in (tmp_path / "records").iterdir() if "empty" not in p.name]
    assert tuple(pyarrow.parquet.read_table(path).column_names) == COLUMNS
    assert not list(tmp_path.rglob(".part-*"))


def test_store_separates_similar_ids(tmp_path: Path) -> None:
    store = Store(tmp_path, SETTINGS)
    store.add("a/b", RECORDS[:1])
    assert not store.done("a_b")
    assert not store.done("a%2fb")


def test_store_rejects_other_settings(tmp_path: Path) -> None:
    Store(tmp_path, SETTINGS)
    with pytest.raises(OutputError, match=r"holds a run of other settings \(methods, limit\)"):
        Store(tmp_path, {**SETTINGS, "methods": {"gae": {"x": 1}}, "limit": 3})
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(OutputError, match="its settings cannot be read"):
        Store(tmp_path, SETTINGS)


def test_store_rejects_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write to"):
        Store(tmp_path / "file", SETTINGS)
