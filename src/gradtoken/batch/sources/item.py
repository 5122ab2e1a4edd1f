"""An image of a source before it is read, and tables of such items."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from gradtoken.extras import needs


class Item(NamedTuple):
    """Where the bytes of an image are.

    Args:
        id: unique in the run.
        source: its name for people: a path, or an archive's path, "::" and a member.
        file: the file to open; a path or a URL that fsspec reads.
        offset: first byte in a tar file or Arrow file, or row group in a Parquet file.
        size: of the encoded image in bytes, if the listing has it.
        row: in the row group or record batch.
        stamp: size and time, or ETag, which tell the file from a later one of the same name.
        targets: the value of the target column as JSON.
        problem: why it cannot be read, if the listing shows that.
    """

    id: str
    source: str
    file: str
    offset: int | None = None
    size: int | None = None
    row: int | None = None
    stamp: str = ""
    targets: str | None = None
    problem: str | None = None


def listing_schema() -> Any:
    """The Arrow schema of a table of items."""
    pa = needs("pyarrow")
    numbers = ("offset", "size", "row")
    return pa.schema(
        [(name, pa.int64() if name in numbers else pa.string()) for name in Item._fields]
    )


def to_table(items: Iterable[Item]) -> Any:
    """Items as an Arrow table."""
    pa = needs("pyarrow")
    columns: list[Any] = list(zip(*items, strict=True)) or [()] * len(Item._fields)
    schema = listing_schema()
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)],
        schema=schema,
    )


def from_table(table: Any) -> list[Item]:
    """Items of an Arrow table."""
    columns = (table[name].to_pylist() for name in Item._fields)
    return [Item(*values) for values in zip(*columns, strict=True)]
