"""Sources of a batch run that someone else packed: tar files, tables, manifests and folders."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import struct
import tarfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from fuzz import small
from fuzz.mutate import damaged, distorted, nested, value, word
from fuzz.target import Target
from gradtoken.batch.engines.decoding import Decoder
from gradtoken.batch.sources.item import from_table, to_table
from gradtoken.batch.sources.listing import KINDS, Source, list_items
from gradtoken.batch.sources.tables import Columns

_PIXELS = 10_000
_SECRET = small.picture("PNG", 9, 9)
_NAMES = ("a.png", "b.jpg", "sub/c.png", "d.webp")
_ESCAPES = (
    "../outside/secret.png",
    "sub/../../outside/secret.png",
    "{outside}/secret.png",
    "file://{outside}/secret.png",
    "//{outside}/secret.png",
    "/etc/passwd",
    "http://127.0.0.1:9/a.png",
    "a.png/../../outside/secret.png",
    "..",
    ".",
)


def _member(rng: Random, outside: Path) -> str:
    if rng.random() < 0.5:
        return rng.choice(_NAMES)
    return _hostile(rng, outside)


def _hostile(rng: Random, outside: Path) -> str:
    if rng.random() < 0.6:
        return rng.choice(_ESCAPES).replace("{outside}", str(outside))
    return word(rng)


def _picture(rng: Random) -> bytes:
    found = small.picture(rng.choice(("PNG", "JPEG", "GIF", "EPS")))
    draw = rng.random()
    if draw < 0.2:
        return damaged(found, rng)
    if draw < 0.25:
        return b""
    if draw < 0.3:
        return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1 << 30, 1 << 30)
    return found


def _tar(rng: Random, outside: Path) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=rng.choice((0, 1, 2))) as archive:
        for _ in range(rng.randrange(4)):
            name = _member(rng, outside).encode("utf-8", "replace").decode()
            member = tarfile.TarInfo(name)
            content = _picture(rng)
            member.size = len(content)
            draw = rng.random()
            if draw < 0.2:
                member.type = rng.choice(
                    (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
                )
                member.linkname = str(outside / "secret.png")
                member.size = 0
            try:
                archive.addfile(member, io.BytesIO(content))
                if rng.random() < 0.4:
                    note = tarfile.TarInfo(name.partition(".")[0] + rng.choice((".cls", ".json")))
                    text = rng.choice((json.dumps(value(rng)), nested(rng))).encode(
                        "utf-8", "replace"
                    )
                    note.size = len(text)
                    archive.addfile(note, io.BytesIO(text))
            except (ValueError, OverflowError):
                continue  # tarfile itself writes no such name
    data = sink.getvalue()
    return damaged(data, rng) if rng.random() < 0.5 else data


def _column(rng: Random, outside: Path, rows: int) -> pa.Array:
    kind = rng.randrange(6)
    if kind == 0:
        return pa.array([_picture(rng) for _ in range(rows)])
    if kind == 1:
        return pa.array([_text(rng, outside) for _ in range(rows)])
    if kind == 2:
        return pa.array(
            [{"bytes": None, "path": _text(rng, outside)} for _ in range(rows)],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        )
    if kind == 3:
        return pa.array([{"bytes": _picture(rng), "path": "x"} for _ in range(rows)])
    if kind == 4:
        return pa.array(rng.choice(([1, 2, 3], [None] * 3, [[b"a"]] * 3, [{"a": 1}] * 3))[:rows])
    return pa.DictionaryArray.from_arrays(
        pa.array([0] * rows, pa.int32()), pa.array([_picture(rng)])
    )


def _text(rng: Random, outside: Path) -> str:
    return _member(rng, outside).encode("utf-8", "replace").decode()


def _table(rng: Random, outside: Path) -> pa.Table:
    rows = rng.randrange(4)
    names = rng.sample(("image", "path", "img", "label", "id", "x\ny"), rng.randrange(1, 4))
    table = pa.table({name: _column(rng, outside, rows) for name in names})
    if rng.random() < 0.4:
        features: Any = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a"]}}}}
        for _ in range(rng.randrange(3)):
            features = distorted(features, rng)
        text = json.dumps(features).encode("utf-8", "replace")
        table = table.replace_schema_metadata({b"huggingface": text})
    return table


def _parquet(rng: Random, outside: Path) -> bytes:
    sink = io.BytesIO()
    if rng.random() < 0.02:
        return _bomb()
    pa.parquet.write_table(_table(rng, outside), sink)
    data = sink.getvalue()
    return damaged(data, rng) if rng.random() < 0.4 else data


@cache
def _bomb() -> bytes:
    """Few bytes that are a million rows of a kilobyte each."""
    indices = pa.repeat(pa.scalar(0, pa.int32()), 1_000_000)
    column = pa.DictionaryArray.from_arrays(indices, pa.array([b"x" * 1000]))
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table({"image": column}), sink, compression="zstd")
    return sink.getvalue()


def _arrow(rng: Random, outside: Path) -> bytes:
    sink = io.BytesIO()
    table = _table(rng, outside)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    return damaged(data, rng) if rng.random() < 0.3 else data


def _csv(rng: Random, outside: Path) -> bytes:
    sink = io.StringIO()
    rows = csv.writer(sink, delimiter=rng.choice(",\t;"))
    rows.writerow(rng.sample(("path", "image", "id", "label", "", "path"), rng.randrange(1, 4)))
    for _ in range(rng.randrange(5)):
        rows.writerow([_hostile(rng, outside) if rng.random() < 0.6 else "a.png" for _ in "123"])
    data = sink.getvalue().encode(rng.choice(("utf-8", "utf-16", "latin-1")), "replace")
    return damaged(data, rng) if rng.random() < 0.3 else data


def _put(path: Path, content: bytes, rng: Random) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    draw = rng.random()
    if draw < 0.03:
        os.mkfifo(path)
    elif draw < 0.05:
        path.symlink_to("/dev/zero")
    elif draw < 0.06:
        path.mkdir()
    else:
        path.write_bytes(content)


def _dataset(root: Path, rng: Random, outside: Path) -> None:
    splits = rng.choice(([""], ["train"], ["train", "test"]))
    if splits != [""] or rng.random() < 0.1:
        listed: Any = {"splits": splits}
        if rng.random() < 0.3:
            listed = rng.choice(({"splits": ["../outside"]}, {"splits": "ab"}, value(rng)))
        _put(root / "dataset_dict.json", _json(listed, rng), rng)
    for split in splits:
        state: Any = {"_data_files": [{"filename": "data-00000.arrow"}]}
        if rng.random() < 0.3:
            state = distorted(state, rng)
        if rng.random() < 0.1:
            state = {"_data_files": [{"filename": rng.choice(_ESCAPES)}]}
        _put(root / split / "state.json", _json(state, rng), rng)
        _put(root / split / "data-00000.arrow", _arrow(rng, outside), rng)


def _json(data: Any, rng: Random) -> bytes:
    text = nested(rng) if rng.random() < 0.05 else json.dumps(data)
    return text.encode("utf-8", "replace")


def _source(root: Path, rng: Random, outside: Path) -> str:
    """Pack something below `root` and say what it is called."""
    kind = rng.choice(KINDS)
    if kind == "hf":
        _dataset(root, rng, outside)
        return str(root)
    if kind == "folder":
        for name in rng.sample(_NAMES, rng.randrange(4)):
            _put(root / name, _picture(rng), rng)
        if rng.random() < 0.2:
            (root / "loop").symlink_to(root, target_is_directory=True)
        odd = word(rng).replace("\0", "").replace("..", "")
        return rng.choice((str(root), str(root / "*.png"), f"{root}/{odd}"))
    make = {"tar": _tar, "parquet": _parquet, "csv": _csv}[kind]
    ending = {"tar": ".tar", "parquet": ".parquet", "csv": rng.choice((".csv", ".tsv"))}[kind]
    content = make(rng, outside)
    if rng.random() < 0.1:
        ending, content = ending + ".gz", gzip.compress(content)
    _put(root / f"s{ending}", content, rng)
    return rng.choice((str(root), str(root / f"s{ending}"), str(root / f"*{ending}")))


def attempt(rng: Random, folder: Path) -> None:
    outside, root = folder / "outside", folder / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "secret.png").write_bytes(_SECRET)
    (root / "a.png").write_bytes(small.picture("PNG"))
    spec = _source(root, rng, outside)
    columns = Columns(
        image=rng.choice((*[None] * 8, "image", "path", word(rng))),
        id=rng.choice((*[None] * 8, "id", word(rng))),
        targets=rng.choice((*[None] * 8, "label", "cls", word(rng))),
        root=rng.choice((None, None, str(root))),
    )
    kind = rng.choice((*[None] * 12, *KINDS))
    items = []
    for item in list_items(Source(spec, kind, columns)):
        items.append(item)
        if len(items) == 50:
            break
    assert from_table(to_table(items)) == items
    decoder = Decoder(small.model().preprocess, 4, _PIXELS, columns.image)
    secret = hashlib.sha256(_SECRET).hexdigest()
    count = 0
    for chunk in decoder(0, 0, items):
        for image in chunk.images:
            count += 1
            assert image.sha256 != secret, "a name led out of the source"
            assert (image.pixels is None) != (image.error is None)
            assert image.error is None or "\n" not in image.error
    assert count == len(items)


TARGET = Target(attempt, seconds=10, megabytes=256)
