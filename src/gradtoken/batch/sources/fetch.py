"""Reading the bytes of items, with each file opened once."""

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
"""Encoded images with more bytes are an error, and are not read."""
_TRIES = 3
_ROWS = 32
"""Rows of a table in memory at once."""
_TRANSIENT = (errno.EIO, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EMFILE)

Content = bytes | ImageError
"""An encoded image, or the reason why it cannot be read."""


def fetch(
    items: Sequence[Item], options: Mapping[str, Any], image_column: str | None
) -> Iterator[tuple[Item, Content]]:
    """Yield each item with its bytes, or with an error if they cannot be read.

    Args:
        items: of one shard; those of one file are consecutive.
        options: for fsspec.
        image_column: of Parquet and Arrow files.

    Raises:
        DatasetError: the source cannot be reached after three tries, which is no fault of an image.
    """
    for (file, kind), consecutive in groupby(items, lambda item: (item.file, _kind(item))):
        group = list(consecutive)
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
) -> Iterator[tuple[Item, Content]]:
    """Whole files, or members of a tar file."""
    if items[0].offset is None:
        for item in items:
            yield item, _read_with_retries(item, partial(_read_file, item, options))
        return
    try:
        with opened(file, options) as stream:
            for item in items:
                yield item, _read_with_retries(item, partial(_read_range, stream, item))
    except OSError as error:
        raise _unreachable(file, error) from None


def _read_file(item: Item, options: Mapping[str, Any]) -> bytes:
    _check_size(item, item.size)
    with opened(item.file, options, unpack=False) as stream:
        content = bytes(stream.read(MAX_BYTES + 1))
    _check_size(item, len(content))
    if item.size is not None and len(content) != item.size:
        raise ImageError(f"{item.source} has changed since the run was planned.")
    return content


def _read_range(stream: Any, item: Item) -> bytes:
    assert item.size is not None
    _check_size(item, item.size)
    stream.seek(item.offset)
    content = bytes(stream.read(item.size))
    if len(content) != item.size:
        raise ImageError(f"{item.source} is cut short: its archive ends before it.")
    return content


def _rows(
    file: str, items: Sequence[Item], options: Mapping[str, Any], column: str | None
) -> Iterator[tuple[Item, Content]]:
    """Rows of a Parquet file's row groups or of an Arrow file's record batches."""
    pa = needs("pyarrow")
    remaining = list(items)
    try:
        with opened(file, options) as stream:
            for item, value in _values(stream, file, items, column):
                remaining.pop(0)
                yield item, _read_with_retries(item, partial(_read_cell, item, value, options))
    except (pa.ArrowException, ValueError) as error:
        for item in remaining:
            yield item, ImageError(f"{item.source} cannot be read: {error}.")
    except OSError as error:
        if remaining and type(error) is OSError and error.errno is None:  # pyarrow's, for damage
            for item in remaining:
                yield item, ImageError(f"{item.source} cannot be read: {error}.")
        else:
            raise _unreachable(file, error) from None


def _values(
    stream: Any, file: str, items: Sequence[Item], column: str | None
) -> Iterator[tuple[Item, Any]]:
    """Each item with its value in the image column."""
    pa, parquet = needs("pyarrow"), needs("pyarrow.parquet")
    is_parquet = stream.read(4) == b"PAR1"
    stream.seek(0)
    if is_parquet:
        table = parquet.ParquetFile(stream, buffer_size=1 << 20)
        schema = table.schema_arrow
    else:
        schema = pa.ipc.open_stream(stream).schema
    name = column or usual_column(schema, schema.names, file)
    for place, consecutive in groupby(items, lambda item: item.offset):
        group = list(consecutive)
        if is_parquet:
            batches = table.iter_batches(_ROWS, row_groups=[place], columns=[name])
        else:
            stream.seek(place)
            message = pa.ipc.read_message(stream)
            batches = iter([pa.ipc.read_record_batch(message, schema)])
        yield from _select(batches, group, name)


def _select(batches: Iterator[Any], items: list[Item], name: str) -> Iterator[tuple[Item, Any]]:
    """The values of a column in the rows of some items."""
    remaining, start = iter(items), 0
    item = next(remaining, None)
    for batch in batches:
        values = batch.column(name)
        while item is not None and item.row is not None and item.row < start + len(values):
            yield item, values[item.row - start].as_py()
            item = next(remaining, None)
        if item is None:
            return
        start += len(values)
    raise ValueError("it has fewer rows than when the run was planned")


def _read_cell(item: Item, value: Any, options: Mapping[str, Any]) -> bytes:
    """The encoded image in a cell: bytes, or a struct of bytes or path."""
    if isinstance(value, dict):
        content, path = value.get("bytes"), value.get("path")
        if content is None and isinstance(path, str) and path:
            file = inside(item.file.rpartition("/")[0] or ".", path)
            if file is None:
                raise ImageError(f"{item.source}: {path!r} leads out of the data set's folder.")
            return _read_file(item._replace(file=file, size=None), options)
        value = content
    if not isinstance(value, bytes):
        raise ImageError(f"{item.source} holds no image.")
    _check_size(item, len(value))
    return value


def _check_size(item: Item, size: int | None) -> None:
    if size is not None and size > MAX_BYTES:
        raise ImageError(
            f"{item.source} has {size:,} bytes, above the limit of {MAX_BYTES:,}; make it smaller "
            "first."
        )


def _read_with_retries(item: Item, read: Callable[[], bytes]) -> Content:
    """The result of `read`, which is tried again after transient errors.

    Raises:
        DatasetError: the error is still there; other errors are returned.
    """
    for attempt in range(_TRIES):
        try:
            return read()
        except ImageError as error:
            return error
        except (OSError, ValueError) as error:
            if not _is_transient(error):
                return ImageError(f"{item.source} cannot be read: {reason(error)}.")
            if attempt == _TRIES - 1:
                raise _unreachable(item.source, error) from None
            time.sleep(0.2 * 4**attempt)
    raise AssertionError


def _is_transient(error: Exception) -> bool:
    return isinstance(error, (ConnectionError, TimeoutError)) or (
        isinstance(error, OSError) and error.errno in _TRANSIENT
    )


def _unreachable(name: str, error: Exception) -> DatasetError:
    return DatasetError(
        f"{name} cannot be reached: {reason(error)}; what is finished is kept, run again with "
        "--resume."
    )
