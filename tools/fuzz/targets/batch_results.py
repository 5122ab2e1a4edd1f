"""A batch run's folder that someone else made or damaged: read, summarised, gone on with."""

from __future__ import annotations

import hashlib
import io
import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from fuzz import small
from fuzz.mutate import damaged, distorted, nested, word
from fuzz.target import Target
from gradtoken.batch import Job, read, run
from gradtoken.batch.results.folder import LOCK
from gradtoken.batch.results.schema import results_schema
from gradtoken.batch.results.summarising import COLUMNS, summarise
from gradtoken.models import Model

_PICTURES = 5


class _Small(Job):
    """A job whose model is the small one, whatever its name."""

    def load(self, device: str | None = None) -> Model:
        return small.model()


@cache
def _sound() -> dict[str, bytes]:
    """The files of a whole run over `_source`."""
    with TemporaryDirectory() as place:
        root = Path(place)
        _source(root / "root")
        run(str(root / "root"), root / "out", _Small(), shard_size=2, threads=1, decoders=1)
        return {
            p.relative_to(root / "out").as_posix(): p.read_bytes()
            for p in sorted((root / "out").rglob("*"))
            if p.is_file() and p.name != LOCK
        }


def _source(folder: Path) -> None:
    folder.mkdir(parents=True)
    for index in range(_PICTURES):
        path = folder / f"{index}.png"
        path.write_bytes(small.picture("PNG", 8 + index, 8) if index != 3 else b"no picture")
        os.utime(path, (0, 0))


def _other(rng: Random) -> bytes:
    """A sound Parquet file whose rows are not those of a run, or not all of the columns."""
    schema = results_schema()
    names = [field.name for field in schema if rng.random() < 0.9]
    table = pa.parquet.read_table(io.BytesIO(_sound()["data/00000000.parquet"])).select(names)
    for _ in range(rng.randrange(4)):
        name = rng.choice(names)
        rows = len(table)
        column: Any = rng.choice(
            (
                [None] * rows,
                [0] * rows,
                [-1] * rows,
                [2**15 - 1] * rows,
                [float("nan")] * rows,
                [[1.0]] * rows,
                [[]] * rows,
                [word(rng).encode("utf-8", "replace").decode()] * rows,
                [b"\xff"] * rows,
            )
        )
        made = pa.array(column)
        if rng.random() < 0.7:
            with suppress(pa.ArrowException):
                made = made.cast(schema.field(name).type)
        table = table.set_column(table.schema.get_field_index(name), name, made)
    sink = io.BytesIO()
    pa.parquet.write_table(table, sink)
    return sink.getvalue()


@cache
def _bomb() -> bytes:
    """Few bytes that are a million rows."""
    rows = 1_000_000
    sink = io.BytesIO()
    table = pa.table([pa.nulls(rows, field.type) for field in results_schema()], results_schema())
    pa.parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _hurt(name: str, content: bytes, rng: Random) -> bytes:
    if rng.random() < 0.4:
        return damaged(content, rng)
    if name.endswith(".parquet"):
        return _bomb() if rng.random() < 0.03 else _other(rng)
    lines = []
    for line in content.decode().splitlines() if name.endswith(".jsonl") else [content.decode()]:
        record = json.loads(line)
        for _ in range(rng.randrange(3)):
            record = distorted(record, rng)
        lines.append(nested(rng) if rng.random() < 0.05 else json.dumps(record))
    return "\n".join(lines).encode("utf-8", "replace")


def _lay_out(out: Path, outside: Path, rng: Random) -> None:
    """The sound run's files, some of them gone, hurt, or something else than files."""
    share = rng.choice((0.1, 0.3, 0.6))
    for name, content in _sound().items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = rng.random()
        if draw > share:
            path.write_bytes(content)
        elif draw < share * 0.6:
            path.write_bytes(_hurt(name, content, rng))
        elif draw < share * 0.65:
            os.mkfifo(path)
        elif draw < share * 0.7:
            path.symlink_to(rng.choice(("/dev/zero", str(outside / "kept"), str(outside))))
        elif draw < share * 0.75:
            path.mkdir()
    if rng.random() < 0.2:
        (out / "data" / rng.choice(("x.parquet", ".part-x", "99999999.parquet", "a"))).write_bytes(
            _other(rng)
        )


def _state(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file() and not p.is_symlink()
    }


def _read(out: Path) -> None:
    found = read(str(out), errors=None)
    for one in found:
        assert one.tokens is None or one.tokens.ndim == 2
        if one.tokens is not None and one.size is not None and one.box is not None:
            one.relevance((8, 8))
    assert len(found) >= 0


def _resume(root: Path, out: Path) -> None:
    """A run that says it is whole has a row or more of every picture."""
    summary = run(str(root), out, _Small(), shard_size=2, resume=True, threads=1, decoders=1)
    assert summary.images == _PICTURES
    assert sorted(p.name for p in (out / "data").glob("0000000[012].parquet")) == [
        f"0000000{shard}.parquet" for shard in range(3)
    ]


def attempt(rng: Random, folder: Path) -> None:
    root, out, outside = folder / "root", folder / "out", folder / "outside"
    _source(root)
    outside.mkdir()
    (outside / "kept").write_text("kept")
    out.mkdir()
    _lay_out(out, outside, rng)
    kind = rng.choice(("read", "summarise", "resume"))
    try:
        if kind == "read":
            _read(out)
        elif kind == "summarise":
            summarise(read(str(out), errors=None).batches(COLUMNS), 3)
        else:
            _resume(root, out)
    finally:
        assert _state(outside) == {"kept": hashlib.sha256(b"kept").hexdigest()}


TARGET = Target(attempt, seconds=15, megabytes=512)
