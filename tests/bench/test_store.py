"""Records on disk: whole, found again, and never mixed with another run's."""

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


def test_what_is_added_is_read_again(tmp_path: Path) -> None:
    store = Store(tmp_path, SETTINGS)
    assert not store.done("a/b c.png")
    store.add("a/b c.png", RECORDS)
    store.add("empty", [])
    again = Store(tmp_path, SETTINGS)
    assert again.done("a/b c.png")
    assert again.done("empty")
    found = again.read(["a/b c.png", "empty"])
    assert found.methods() == ["gae", "rollout"]
    assert found.metrics() == ["share", "energy"]
    one = found.where(method="gae", metric="share").by_instance()
    assert one["a/b c.png", "cat"] == 0.5
    assert np.isnan(one["a/b c.png", "dog"])
    (path,) = [p for p in (tmp_path / "records").iterdir() if "empty" not in p.name]
    assert tuple(pyarrow.parquet.read_table(path).column_names) == COLUMNS
    assert not list(tmp_path.rglob("*.part"))


def test_names_that_look_alike_are_kept_apart(tmp_path: Path) -> None:
    store = Store(tmp_path, SETTINGS)
    store.add("a/b", RECORDS[:1])
    assert not store.done("a_b")
    assert not store.done("a%2fb")


def test_another_run_is_refused_by_what_differs(tmp_path: Path) -> None:
    Store(tmp_path, SETTINGS)
    with pytest.raises(OutputError, match=r"holds a run of other settings \(methods, limit\)"):
        Store(tmp_path, {**SETTINGS, "methods": {"gae": {"x": 1}}, "limit": 3})
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(OutputError, match="its settings cannot be read"):
        Store(tmp_path, SETTINGS)


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write to"):
        Store(tmp_path / "file", SETTINGS)
