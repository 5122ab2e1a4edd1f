"""The folder of an interrupted benchmark, from which it is to go on: settings and Parquet files."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pyarrow.parquet

from fuzz.mutate import damaged, distorted, nested, word
from fuzz.target import Target
from gradtoken.bench.store import COLUMNS, SETTINGS, Record, Store

_SETTINGS = {"model": "demo", "data": "scenes", "methods": {"gae": {}, "rollout": {"x": [1, 2]}}}
_RECORDS = [Record("a.png", f"cat {i}", "gae", "share", i / 7) for i in range(40)]


@cache
def _sound() -> bytes:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        Store(Path(folder), _SETTINGS).add("a.png", _RECORDS)
        return (Path(folder) / "records" / "a.png.parquet").read_bytes()


@cache
def _bomb(rows: int, letters: int) -> bytes:
    """Few bytes that are very many rows."""
    indices = pyarrow.repeat(pyarrow.scalar(0, pyarrow.int32()), rows)
    column = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["x" * letters]))
    table = pyarrow.table({**dict.fromkeys(COLUMNS, column), "value": pyarrow.repeat(0.5, rows)})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _other(rng: Random) -> bytes:
    """A sound Parquet file of another make."""
    columns: dict[str, Any] = {name: ["a"] * 3 for name in COLUMNS}
    columns["value"] = rng.choice(([1.0, 2.0, None], ["x"] * 3, [1, 2, 3], [[1.0]] * 3, [True] * 3))
    for _ in range(rng.randrange(3)):
        name = rng.choice(COLUMNS)
        if rng.random() < 0.3:
            columns.pop(name, None)
        else:
            columns[name] = rng.choice(([None] * 3, [1, 2, 3], [b"\xff"] * 3, [{"a": 1}] * 3))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


def attempt(rng: Random, folder: Path) -> None:
    (folder / "records").mkdir()
    draw = rng.random()
    data = _sound()
    if draw < 0.6:
        data = damaged(data, rng)
    elif draw < 0.8:
        data = _other(rng)
    elif draw < 0.82:
        data = _bomb(*rng.choice(((3_000_000, 10), (900_000, 1000))))
    elif draw < 0.86:
        data = rng.randbytes(rng.randrange(60))
    (folder / "records" / "a.png.parquet").write_bytes(data)
    draw = rng.random()
    settings: Any = _SETTINGS
    if draw < 0.15:
        settings = distorted(settings, rng)
    text = json.dumps(settings, indent=2, sort_keys=True).encode("utf-8", "replace")
    if draw > 0.9:
        text = damaged(text, rng)
    elif draw > 0.88:
        text = nested(rng).encode()
    if rng.random() < 0.97:
        (folder / SETTINGS).write_bytes(text)
    store = Store(folder, _SETTINGS)
    name = word(rng)
    if not store.done(name):
        store.add(name, [Record(name, word(rng), "gae", "share", 0.5)])
        assert store.done(name)
    found = store.read([name, "a.png"])
    assert all(len(getattr(found, column)) == len(found.value) for column in COLUMNS)
    found.by_instance()
    written = {p.relative_to(folder).parts[0] for p in folder.rglob("*")}
    assert written <= {SETTINGS, "records"}, written


TARGET = Target(attempt, seconds=10, megabytes=256)
