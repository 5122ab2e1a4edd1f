"""The bytes of items, in their order, with each file opened once."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from gradtoken.batch.sources.files import inside, opened, reason
from gradtoken.batch.sources.item import Item
from gradtoken.batch.sources.tables import usual_column
from gradtoken.errors import DatasetError, ImageError
from gradtoken.extras import needs

MAX_BYTES = 1 << 28
"""Encoded pictures of more bytes than this are refused before they are read."""
_TRIES = 3
_ROWS = 32
_PASSING = (errno.EIO, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EMFILE)

Found = bytes | ImageError


def fetch(
    items: Sequence[Item], options: Mapping[str, Any], image_column: str | None
) -> Iterator[tuple[Item, Found]]:
    """Each item with its bytes, or with the error that says why there are none.

    Args:
        items: of one shard; those of one file lie together.
        options: for fsspec.
        image_column: of Parquet and Arrow files.

    Raises:
        DatasetError: if the place where the pictures are does not answer after three tries, which
            says nothing about a picture.
    """
    for (file, kind), run in groupby(items, lambda item: (item.file, _kind(item))):
        group = list(run)
        if kind == "problem":
            yield from ((item, ImageError(f"{item.source}: {item.problem}")) for item in group)
        elif kind == "row":
            yield from _rows(file, group, options, image_column)
        else:
            yield from _ranges(file, group, options)


def _kind(item: Item) -> str:
    if item.problem is not None:
        return "problem"
    return "row" if item.row is not None else "range"


def _ranges(
    file: str, items: Sequence[Item], options: Mapping[str, Any]
) -> Iterator[tuple[Item, Found]]:
    """Whole files, or members of a tar file."""
    if items[0].offset is None:
        for item in items:
            yield item, _guarded(item, partial(_whole, item, options))
        return
    try:
        with opened(file, options) as stream:
            for item in items:
                yield item, _guarded(item, partial(_part, stream, item))
    except OSError as error:
        raise _silent(file, error) from None


def _whole(item: Item, options: Mapping[str, Any]) -> bytes:
    _check_size(item, item.size)
    with opened(item.file, options, unpack=False) as stream:
        content = bytes(stream.read(MAX_BYTES + 1))
    _check_size(item, len(content))
    if item.size is not None and len(content) != item.size:
        raise ImageError(f"{item.source} has changed since the run was planned.")
    return content


def _part(stream: Any, item: Item) -> bytes:
    assert item.size is not None
    _check_size(item, item.size)
    stream.seek(item.offset)
    content = bytes(stream.read(item.size))
    if len(content) != item.size:
        raise ImageError(f"{item.source} is cut short: its archive ends before it.")
    return content


def _rows(
    file: str, items: Sequence[Item], options: Mapping[str, Any], column: str | None
) -> Iterator[tuple[Item, Found]]:
    """Rows of a Parquet file's row groups or of an Arrow file's record batches."""
    pa = needs("pyarrow")
    left = list(items)
    try:
        with opened(file, options) as stream:
            for item, value in _values(stream, file, items, column):
                left.pop(0)
                yield (
                    item,
                    _guarded(item, partial(_cell, item, value, options)),
                )
    except (pa.ArrowException, ValueError) as error:
        for item in left:
            yield item, ImageError(f"{item.source} cannot be read: {error}.")
    except OSError as error:
        if left and type(error) is OSError and error.errno is None:  # pyarrow's word for damage
            for item in left:
                yield item, ImageError(f"{item.source} cannot be read: {error}.")
        else:
            raise _silent(file, error) from None


def _values(
    stream: Any, file: str, items: Sequence[Item], column: str | None
) -> Iterator[tuple[Item, Any]]:
    pa, parquet = needs("pyarrow"), needs("pyarrow.parquet")
    is_parquet = stream.read(4) == b"PAR1"
    stream.seek(0)
    if is_parquet:
        table = parquet.ParquetFile(stream, buffer_size=1 << 20)
        schema = table.schema_arrow
    else:
        schema = pa.ipc.open_stream(stream).schema
    name = column or usual_column(schema, schema.names, file)
    for place, run in groupby(items, lambda item: item.offset):
        group = list(run)
        if is_parquet:
            batches = table.iter_batches(_ROWS, row_groups=[place], columns=[name])
        else:
            stream.seek(place)
            message = pa.ipc.read_message(stream)
            batches = iter([pa.ipc.read_record_batch(message, schema)])
        yield from _wanted(batches, group, name)


def _wanted(batches: Iterator[Any], items: list[Item], name: str) -> Iterator[tuple[Item, Any]]:
    waiting, start = iter(items), 0
    item = next(waiting, None)
    for batch in batches:
        values = batch.column(name)
        while item is not None and item.row is not None and item.row < start + len(values):
            yield item, values[item.row - start].as_py()
            item = next(waiting, None)
        if item is None:
            return
        start += len(values)
    raise ValueError("it has fewer rows than when the run was planned")


def _cell(item: Item, value: Any, options: Mapping[str, Any]) -> bytes:
    if isinstance(value, dict):
        content, path = value.get("bytes"), value.get("path")
        if content is None and isinstance(path, str) and path:
            whole = inside(item.file.rpartition("/")[0] or ".", path)
            if whole is None:
                raise ImageError(f"{item.source}: {path!r} leads out of the data set's folder.")
            return _whole(item._replace(file=whole, size=None), options)
        value = content
    if not isinstance(value, bytes):
        raise ImageError(f"{item.source} holds no picture.")
    _check_size(item, len(value))
    return value


def _check_size(item: Item, size: int | None) -> None:
    if size is not None and size > MAX_BYTES:
        raise ImageError(
            f"{item.source} has {size:,} bytes, above the limit of {MAX_BYTES:,}; make it smaller "
            "first."
        )


def _guarded(item: Item, read: Callable[[], bytes]) -> Found:
    """What `read` gives; what passes by itself is tried again, what does not is the picture's."""
    for attempt in range(_TRIES):
        try:
            return read()
        except ImageError as error:
            return error
        except (OSError, ValueError) as error:
            if not _passing(error):
                return ImageError(f"{item.source} cannot be read: {reason(error)}.")
            if attempt == _TRIES - 1:
                raise _silent(item.source, error) from None
            time.sleep(0.2 * 4**attempt)
    raise AssertionError


def _passing(error: Exception) -> bool:
    return isinstance(error, (ConnectionError, TimeoutError)) or (
        isinstance(error, OSError) and error.errno in _PASSING
    )


def _silent(name: str, error: Exception) -> DatasetError:
    return DatasetError(
        f"{name} cannot be reached: {reason(error)}; what is finished is kept, run again with "
        "--resume."
    )
