"""Images in tables: Parquet files, Hugging Face data sets on disk and CSV files.

An image column holds bytes, structs of `bytes` and `path`, or paths of image files.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gradtoken.batch.sources.files import File, Files, absolute, file_stamp, inside, opened
from gradtoken.batch.sources.item import Item
from gradtoken.errors import DatasetError, did_you_mean
from gradtoken.extras import needs

USUAL = (
    *("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "image_bytes"),
    *("path", "image_path", "file", "file_name", "filename", "filepath", "url"),
)
"""Usual names of image columns; the first that a table has is used."""
_ROWS = 4096
_MAX_FIELD = 1 << 20


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    Args:
        image: the column of images or their paths; None for the first with a usual name.
        id: the column of ids; None makes ids of the file's name and the row.
        targets: the column of each row's own targets.
        root: the folder that paths are relative to, and that they must not lead out of; None for
            the table's.
    """

    image: str | None = None
    id: str | None = None
    targets: str | None = None
    root: str | None = None


def list_parquet(
    files: Files, file: File, name: str, options: dict[str, Any], columns: Columns
) -> Iterator[Item]:
    """Yield the rows of a Parquet file, without reading the images.

    Raises:
        DatasetError: the file is damaged or lacks a column.
    """
    pa, parquet = needs("pyarrow"), needs("pyarrow.parquet")
    url = files.url(file.path)
    try:
        with opened(url, options) as stream:
            table = parquet.ParquetFile(stream)
            schema = table.schema_arrow
            maker = _ItemMaker(schema, schema.names, file, url, name, columns)
            for group in range(table.num_row_groups):
                start = 0
                if not maker.needed:
                    rows = table.metadata.row_group(group).num_rows
                    yield from maker.items(group, 0, [{}] * rows)
                    continue
                for batch in table.iter_batches(_ROWS, row_groups=[group], columns=maker.needed):
                    yield from maker.items(group, start, batch.to_pylist())
                    start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{file.path} is no readable Parquet file: {error}.") from None


def list_arrow(
    files: Files, file: File, name: str, options: dict[str, Any], columns: Columns
) -> Iterator[Item]:
    """Yield the rows of an Arrow stream file, as Hugging Face's `save_to_disk` writes it.

    Raises:
        DatasetError: the file is damaged or lacks a column.
    """
    pa = needs("pyarrow")
    url = files.url(file.path)
    try:
        with opened(url, options) as stream:
            reader = pa.ipc.open_stream(stream)
            maker = _ItemMaker(
                reader.schema,
                reader.schema.names,
                file,
                url,
                name,
                columns,
                class_names(reader.schema),
            )
            place = stream.tell()
            for batch in reader:
                rows = batch.select(maker.needed).to_pylist() or [{}] * batch.num_rows
                yield from maker.items(place, 0, rows)
                place = stream.tell()
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{file.path} is no readable Arrow file: {error}.") from None


def list_csv(
    files: Files, file: File, name: str, options: dict[str, Any], columns: Columns
) -> Iterator[Item]:
    """Yield the rows of a CSV file (TSV by its name) whose first row names its columns.

    Raises:
        DatasetError: the file is damaged or lacks a column.
    """
    url = files.url(file.path)
    delimiter = "\t" if ".tsv" in file.path.lower() else ","
    csv.field_size_limit(_MAX_FIELD)
    try:
        with opened(url, options) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            rows = csv.DictReader(text, delimiter=delimiter, strict=True)
            names = list(rows.fieldnames or [])
            maker = _ItemMaker(None, names, file, url, name, columns)
            for number, row in enumerate(rows):
                yield from maker.items(None, number, [row])
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DatasetError(f"{file.path} is no readable CSV file: {error}.") from None


class _ItemMaker:
    """Makes the items of one table.

    Args:
        schema: an Arrow schema, or None if all columns are text.
        names: of all columns.
        file: of the table.
        url: of the file.
        name: that ids begin with.
        columns: which of them to use.
        classes: class names by column, if the table has them.
    """

    def __init__(
        self,
        schema: Any,
        names: Sequence[str],
        file: File,
        url: str,
        name: str,
        columns: Columns,
        classes: dict[str, list[str]] | None = None,
    ) -> None:
        self._names = list(names)
        self._file, self._url, self._name = file, url, name
        self._columns, self._classes = columns, classes or {}
        self._count = 0
        self._root = absolute(columns.root) if columns.root else url.rpartition("/")[0] or "."
        self.image = self._check(columns.image, "--image-column") or usual_column(
            schema, names, file.path
        )
        self.holds_bytes = schema is not None and holds_bytes(schema, self.image)
        self._check(columns.id, "--id-column")
        self._check(columns.targets, "--targets column:")
        used = [columns.id, columns.targets, None if self.holds_bytes else self.image]
        self.needed = list(dict.fromkeys(column for column in used if column))

    def items(
        self, group: int | None, start: int, rows: Sequence[dict[str, Any]]
    ) -> Iterator[Item]:
        """The items of some rows.

        Args:
            group: offset of the rows' record batch, or number of their row group.
            start: number of the first row in its group.
            rows: the values in the needed columns.
        """
        for row, values in enumerate(rows, start):
            number = str(self._count)
            self._count += 1
            id_value = values.get(self._columns.id) if self._columns.id else None
            name = f"{self._name}#{number}" if id_value is None else str(id_value)
            targets = self._targets(values)
            if self.holds_bytes:
                source = f"{self._file.path}::{number}"
                yield Item(name, source, self._url, group, None, row, self._file.stamp, targets)
            else:
                yield self._by_path(name, values.get(self.image), targets)

    def _by_path(self, name: str, value: Any, targets: str | None) -> Item:
        text = value if isinstance(value, str) else ""
        path = inside(self._root, text)
        if path is not None:
            return Item(name, text, path, stamp=file_stamp(path), targets=targets)
        problem = (
            f"{text!r} leads out of {self._root}; pass --root with a folder that holds all images."
            if text
            else f"column {self.image!r} names no image here."
        )
        return Item(name, text, "", stamp=self._file.stamp, targets=targets, problem=problem)

    def _targets(self, values: dict[str, Any]) -> str | None:
        column = self._columns.targets
        if column is None or values.get(column) in (None, "", []):
            return None
        value, names = values[column], self._classes.get(column)
        if names and isinstance(value, int) and 0 <= value < len(names):
            value = names[value]
        try:
            return json.dumps(value, ensure_ascii=False)
        except TypeError:
            return json.dumps(str(value), ensure_ascii=False)

    def _check(self, column: str | None, option: str) -> str | None:
        """The column, if the table has it."""
        if column is not None and column not in self._names:
            known = did_you_mean(column, self._names) or f"; it has {', '.join(self._names)}."
            raise DatasetError(f"{self._file.path} has no column {column!r} ({option}){known}")
        return column


def usual_column(schema: Any, names: Sequence[str], file: str) -> str:
    """Detect the column that holds images or their paths.

    Args:
        schema: an Arrow schema, or None if all columns are text.
        names: of all columns.
        file: name of the table, for errors.

    Raises:
        DatasetError: no column has a usual name, and not exactly one holds bytes.
    """
    folded = {name.casefold(): name for name in names}
    for name in USUAL:
        if name in folded:
            return folded[name]
    binary = [name for name in names if schema is not None and holds_bytes(schema, name)]
    if len(binary) == 1:
        return binary[0]
    raise DatasetError(
        f"which column of {file} holds the images is not clear; name it with --image-column: "
        f"{', '.join(names)}."
    )


def holds_bytes(schema: Any, name: str) -> bool:
    """Whether a column of an Arrow schema holds encoded images, not paths."""
    pa = needs("pyarrow")
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def class_names(schema: Any) -> dict[str, list[str]]:
    """Class names by column, from the metadata that `datasets` writes to a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            str(column): [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
