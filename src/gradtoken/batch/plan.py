"""The plan of a run: every image listed once, in shards, on disk.

The listing has a Parquet file for every `SHARDS` shards, with a row group for each shard, so that
neither planning nor explaining holds more than one file in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from gradtoken.batch.results.folder import Folder
from gradtoken.batch.sources.item import Item, from_table, to_table
from gradtoken.errors import DatasetError, OutputError
from gradtoken.extras import needs

SHARDS = 64
"""Shards in each file of the listing."""
FOLDER = "listing"
"""Folder of the listing, in the folder of a run."""


@dataclass(frozen=True)
class Plan:
    """The shards of a run.

    Args:
        shard_size: number of images in each shard; the last one may have fewer.
        images: number of all images.
        pieces: SHA-256 of each file of the listing.
    """

    shard_size: int
    images: int
    pieces: tuple[str, ...]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.images // self.shard_size)


def write_plan(folder: Folder, items: Iterable[Item], shard_size: int, unique: bool) -> Plan:
    """Write the listing of a source into the folder of a run.

    Args:
        folder: of the run.
        items: the source's images, in order.
        shard_size: number of images in each shard.
        unique: check that no id comes twice, where ids are from a column.

    Raises:
        DatasetError: the source cannot be listed, has no image, or an id comes twice.
        OutputError: the listing cannot be written.
    """
    pieces, count = [], 0
    ids = _UniqueIds() if unique else None
    for number, (content, part) in enumerate(_pieces(items, shard_size)):
        if ids:
            ids.add(part)
        folder.write(_name(number), content)
        pieces.append(hashlib.sha256(content).hexdigest())
        count += len(part)
    if not count:
        raise DatasetError("the source lists no image.")
    if ids:
        ids.check()
    return Plan(shard_size, count, tuple(pieces))


def check_plan(folder: Folder, items: Iterable[Item], plan: Plan) -> None:
    """Check that a source is as it was when the plan was made.

    Raises:
        DatasetError: names the first image that differs.
    """
    count = 0
    for number, (content, part) in enumerate(_pieces(items, plan.shard_size)):
        known = plan.pieces[number] if number < len(plan.pieces) else None
        if hashlib.sha256(content).hexdigest() != known:
            before = _read(folder, plan, number) if known else []
            raise DatasetError(_describe_change(before, part))
        count += 1
    if count != len(plan.pieces):
        raise DatasetError(_describe_change(_read(folder, plan, count), []))


def items_of(folder: Folder, plan: Plan, shard: int) -> list[Item]:
    """The items of one shard of a plan, in order.

    Raises:
        OutputError: if the listing in the folder is not the plan's.
    """
    piece, group = divmod(shard, SHARDS)
    return from_table(_piece(folder, plan, piece).read_row_group(group))


def _read(folder: Folder, plan: Plan, number: int) -> list[Item]:
    return from_table(_piece(folder, plan, number).read())


def _piece(folder: Folder, plan: Plan, number: int) -> Any:
    known = plan.pieces[number] if number < len(plan.pieces) else ""
    content = needs("pyarrow").BufferReader(_content(folder, number, known))
    return needs("pyarrow.parquet").ParquetFile(content)


@lru_cache(maxsize=4)
def _content(folder: Folder, number: int, sha256: str) -> bytes:
    content = folder.read(_name(number))
    if content is None or hashlib.sha256(content).hexdigest() != sha256:
        what = "missing" if content is None else "damaged"
        raise OutputError(
            f"{folder.path(_name(number))} is {what}; start the run anew in another folder."
        )
    return content


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06d}.parquet"


def _pieces(items: Iterable[Item], shard_size: int) -> Iterator[tuple[bytes, list[Item]]]:
    """The content of each file of the listing, and the items in it."""
    pa, parquet = needs("pyarrow"), needs("pyarrow.parquet")
    remaining = iter(items)
    while part := list(islice(remaining, SHARDS * shard_size)):
        sink = pa.BufferOutputStream()
        parquet.write_table(to_table(part), sink, row_group_size=shard_size, compression="zstd")
        yield sink.getvalue().to_pybytes(), part


def _describe_change(before: list[Item], now: list[Item]) -> str:
    """An error message that names the first item that differs."""
    begin = "the source has changed since the run began: "
    end = "; run it into another folder, or put the source back as it was."
    for old, new in zip(before, now, strict=False):
        if old != new:
            if old.id != new.id:
                return f"{begin}where {old.source} was listed there is {new.source} now{end}"
            field = next(f for f, a, b in zip(Item._fields, old, new, strict=True) if a != b)
            what = "is another file now" if field in ("stamp", "size", "offset") else "differs"
            return f"{begin}{new.source} {what} (its {field}){end}"
    if len(before) > len(now):
        return f"{begin}{before[len(now)].source} is gone{end}"
    if len(now) > len(before):
        return f"{begin}{now[len(before)].source} is new{end}"
    return f"{begin}its listing differs{end}"


class _UniqueIds:
    """Detects repeated ids; keeps 16 bytes for each."""

    def __init__(self) -> None:
        self._parts: list[Any] = []

    def add(self, items: list[Item]) -> None:
        import numpy as np

        digests = (hashlib.blake2b(i.id.encode(), digest_size=16).digest() for i in items)
        self._parts.append(np.frombuffer(b"".join(digests), dtype="V16"))

    def check(self) -> None:
        import numpy as np

        digests = np.concatenate(self._parts)
        pairs = digests.view("<u8").reshape(-1, 2)
        order = np.lexsort(pairs.T)
        same = (pairs[order[1:]] == pairs[order[:-1]]).all(axis=1)
        if same.any():
            first = int(order[1:][same].min())
            raise DatasetError(
                f"ids are not unique: that of image {first} came before; give an --id-column "
                "without repetitions, or none."
            )
