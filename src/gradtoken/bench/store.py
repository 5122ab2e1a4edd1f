"""Records on disk: one Parquet file per image, so that an interrupted run resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gradtoken import atomic
from gradtoken.bench.records import COLUMNS, Record, Records
from gradtoken.deprecation import renamed_parameters
from gradtoken.errors import GradTokenError, OutputError

SETTINGS = "settings.json"
_LARGEST_SETTINGS = 1 << 24
_MOST_ROWS = 1_000_000
"""Most records of one image (objects by methods by metrics) that are plausible."""
_MOST_TEXT = 1 << 27
"""Most bytes of text in a file, if each text is as long as the longest."""
_LONGEST_NAME = 180
_TEXTS = [name for name in COLUMNS if name != "value"]
_STAMP = "gradtoken.stamp"


class Stamp(NamedTuple):
    """Fingerprints of what the records of an image depend on.

    Args:
        run: fingerprint of the model, the methods and the metrics.
        image: fingerprint of the image and its annotations.
    """

    run: str = ""
    image: str = ""


_NO_STAMP = Stamp()


class Store:
    """The records of one run in a folder.

    Args:
        folder: created if missing; it must not hold a run of other settings.
        settings: of the run, as plain data.

    Raises:
        OutputError: the folder cannot be written, or holds another run.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._parts = folder / "records"
        text = json.dumps(settings, indent=2, sort_keys=True)
        path = folder / SETTINGS
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            before = _read_text(path) if path.exists() else None
            if before is None:
                atomic.write_bytes(path, text.encode(), f"to {folder}")
        except OutputError:
            raise
        except (OSError, ValueError) as error:  # a name with a NUL byte is a ValueError
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"cannot write to {folder}: {reason}.") from None
        if before is not None and before != text:
            raise OutputError(
                f"{folder} holds a run of other settings ({_difference(before, settings)}); give "
                "another --out, or remove it."
            )

    @renamed_parameters(picture="image")
    def done(self, image: str, stamp: Stamp = _NO_STAMP) -> bool:
        """Whether the records of an image are in the store.

        Args:
            image: its id.
            stamp: that they must have.

        Raises:
            OutputError: if they are of another run or another image, or damaged.
        """
        path = self._path(image)
        if not path.exists():
            return False
        stored = _read_stamp(path)
        if stored != stamp:
            what = "with other weights, methods, metrics or libraries, or another class map"
            if stored.run == stamp.run:
                what = "when its pixels or masks were others"
            raise OutputError(
                f"{path} was measured {what}, so this run cannot resume from it; give another "
                "folder, or remove it."
            )
        return True

    @renamed_parameters(picture="image")
    def add(self, image: str, records: Iterable[Record], stamp: Stamp = _NO_STAMP) -> None:
        """Write the records of an image, whole or not at all.

        Args:
            image: its id.
            records: of the image.
            stamp: of the records.

        Raises:
            OutputError: if they cannot be written.
        """
        pa, parquet = _arrow()
        columns = Records.of(_storable(record) for record in records)
        table = pa.table({name: getattr(columns, name) for name in COLUMNS}, schema=_schema(pa))
        table = table.replace_schema_metadata({_STAMP: json.dumps(stamp)})
        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink)
        content = sink.getvalue().to_pybytes()
        atomic.write_bytes(self._path(image), content, f"the records of {image}")

    @renamed_parameters(pictures="images")
    def read(self, images: Iterable[str]) -> Records:
        """The records of some images, by their ids, in this order.

        Raises:
            OutputError: naming the file that is damaged or was not made by this benchmark.
        """
        pa, _ = _arrow()
        tables = [_read_table(self._path(image)) for image in images]
        whole = pa.concat_tables(tables) if tables else _schema(pa).empty_table()
        return Records(*(whole[name].to_numpy() for name in COLUMNS))

    def _path(self, image: str) -> Path:
        safe = "".join(c if c.isalnum() or c in "-_." else f"%{ord(c):x}" for c in image)
        if len(safe.encode()) > _LONGEST_NAME:
            digest = hashlib.sha256(image.encode("utf-8", "surrogatepass")).hexdigest()
            safe = f"{safe[:40]}%{digest}"
        return self._parts / f"{safe}.parquet"


def _read_stamp(path: Path) -> Stamp:
    pa, parquet = _arrow()
    try:
        metadata = parquet.read_schema(path).metadata or {}
        return Stamp(*map(str, json.loads(metadata[_STAMP.encode()])))
    except (OSError, ValueError, TypeError, KeyError, RecursionError, pa.ArrowException) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> OutputError:
    return OutputError(
        f"{path} holds no records of this benchmark ({error}); remove it, and the image is "
        "measured again."
    )


def _read_table(path: Path) -> Any:
    """The records of one image, checked before they take memory."""
    pa, parquet = _arrow()
    plain = _schema(pa)
    try:
        if parquet.read_schema(path).names != plain.names:
            raise ValueError("it has other columns")
        with parquet.ParquetFile(path, read_dictionary=_TEXTS) as file:
            if file.metadata.num_rows > _MOST_ROWS:
                raise ValueError(f"it has {file.metadata.num_rows:,} rows")
            table = file.read()
        table.validate(full=True)
        if table.num_rows * _longest_text(table) > _MOST_TEXT:
            raise ValueError("its texts are longer than names are")
        if any(column.null_count for column in table.columns):
            raise ValueError("values are missing")
        kinds = [getattr(kind, "value_type", kind) for kind in table.schema.types]
        if kinds != plain.types:
            raise ValueError("it has columns of other kinds")
        return table.cast(plain)
    except (OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
        raise _damaged(path, error) from None


def _longest_text(table: Any) -> int:
    """Bytes of the longest text in a table with dictionary-encoded texts."""
    dictionaries = [
        chunk.dictionary
        for column in table.columns
        for chunk in column.chunks
        if hasattr(chunk, "dictionary")
    ]
    return max((len(str(text).encode()) for d in dictionaries for text in d.to_pylist()), default=0)


def _read_text(path: Path) -> str:
    """A file's text; bytes that are no UTF-8 become replacement characters."""
    if path.stat().st_size > _LARGEST_SETTINGS:
        return ""
    return path.read_text("utf-8", "replace")


def _storable(record: Record) -> Record:
    """A record that UTF-8 can hold: lone surrogates, as in some file names, become "?"."""
    sound = {
        name: getattr(record, name).encode("utf-8", "replace").decode("utf-8") for name in _TEXTS
    }
    return record._replace(**sound)


def _difference(before: str, now: Mapping[str, Any]) -> str:
    try:
        old = json.loads(before)
    except (ValueError, RecursionError):
        old = None
    if not isinstance(old, dict):
        return "its settings cannot be read"
    keys = [key for key in {**old, **now} if old.get(key) != json.loads(json.dumps(now.get(key)))]
    return ", ".join(keys) or "written differently"


def _schema(pa: Any) -> Any:
    return pa.schema([(name, pa.string() if name in _TEXTS else pa.float64()) for name in COLUMNS])


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise GradTokenError(
            "records are kept in Parquet files, which need pyarrow; install gradtoken[bench]."
        ) from None
    return pyarrow, pyarrow.parquet
