"""The files that an interrupted benchmark goes on from, damaged or prepared by others."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from gradtoken.bench.store import COLUMNS, SETTINGS, Record, Store
from gradtoken.errors import OutputError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path, {"a": 1})
    store.add("p", [Record("p", "cat", "gae", "share", 0.5)] * 20)
    return store


def _file(folder: Path) -> Path:
    (path,) = (folder / "records").iterdir()
    return path


def test_read_rejects_cut_or_changed_bytes(store: Store, tmp_path: Path) -> None:
    path = _file(tmp_path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:50], whole[:-9], whole.replace(b"PAR1", b"XXXX")):
        path.write_bytes(damaged)
        with pytest.raises(OutputError, match=r"holds no records of this benchmark.*remove it"):
            store.read(["p"])
    path.unlink()
    with pytest.raises(OutputError, match="holds no records"):
        store.read(["p"])
    assert not store.done("p")


@pytest.mark.parametrize(
    "columns",
    [
        {"picture": ["p"]},
        {name: ["p"] for name in COLUMNS},
        {**{name: ["p"] for name in COLUMNS}, "value": [None]},
        {**{name: [3] for name in COLUMNS}, "value": [0.5]},
        {**{name: ["p"] for name in COLUMNS}, "value": [[0.5]]},
        {**{name: ["p"] for name in COLUMNS[:4]}, "value": [0.5]},
    ],
    ids=["few", "text", "missing", "numbers", "lists", "without reasons"],
)
def test_read_rejects_other_columns(
    store: Store, tmp_path: Path, columns: dict[str, list[object]]
) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), _file(tmp_path))
    with pytest.raises(OutputError, match="holds no records"):
        store.read(["p"])


@pytest.mark.parametrize(
    ("rows", "letters", "words"),
    [(3_000_000, 1, "it has 3,000,000 rows"), (900_000, 2000, "longer than names are")],
)
def test_read_rejects_few_bytes_of_many_rows(
    store: Store, tmp_path: Path, rows: int, letters: int, words: str
) -> None:
    indices = pyarrow.repeat(pyarrow.scalar(0, pyarrow.int32()), rows)
    column = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["x" * letters]))
    columns = dict.fromkeys(COLUMNS, column)
    table = pyarrow.table({**columns, "value": pyarrow.repeat(0.5, rows)})
    pyarrow.parquet.write_table(table, _file(tmp_path), compression="zstd")
    assert _file(tmp_path).stat().st_size < 1 << 20
    with pytest.raises(OutputError, match=words):
        store.read(["p"])


@pytest.mark.parametrize("name", ["x" * 5000, "é" * 200, "../../x", "a\0b", "bad\udcff", "."])
def test_store_accepts_ids_that_are_no_file_names(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "run", {"a": 1})
    assert not store.done(name)
    store.add(name, [Record(name, "cat", "gae", "share", 0.5)])
    assert store.done(name)
    assert store.read([name]).value.tolist() == [0.5]
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_store_separates_long_ids(tmp_path: Path) -> None:
    store = Store(tmp_path, {"a": 1})
    store.add("x" * 5000, [])
    assert not store.done("x" * 5001)


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "null", "\xff\xfe", ""])
def test_store_rejects_damaged_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / SETTINGS).write_text(text, "latin-1")
    with pytest.raises(OutputError, match="its settings cannot be read"):
        Store(tmp_path, {"a": 1})


def test_store_compares_settings(store: Store, tmp_path: Path) -> None:
    assert json.loads((tmp_path / SETTINGS).read_text()) == {"a": 1}
    with pytest.raises(OutputError, match=r"other settings \(a\)"):
        Store(tmp_path, {"a": 2})
