"""A source of pictures by name: what kind it is, and the items in it."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gradtoken.batch.sources.files import File, Files, has_pattern
from gradtoken.batch.sources.item import Item
from gradtoken.batch.sources.tables import Columns, list_arrow, list_csv, list_parquet
from gradtoken.batch.sources.tars import TAR_SUFFIXES, list_tar
from gradtoken.errors import DatasetError
from gradtoken.images.load_image import SUFFIXES

KINDS = ("folder", "tar", "parquet", "hf", "csv")
_CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_HF = ("dataset_dict.json", "state.json")


@dataclass(frozen=True)
class Source:
    """Where pictures are from.

    Args:
        spec: a folder, file or pattern; a path or a URL.
        kind: one of `KINDS`; None finds it out.
        columns: which columns are what, for tables; `columns.targets` also for tar files.
        options: what fsspec's file system takes; never written down, since it may hold keys.
    """

    spec: str
    kind: str | None = None
    columns: Columns = field(default_factory=Columns)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def settings(self) -> dict[str, Any]:
        """What decides which pictures it lists, as plain data."""
        return {"spec": self.spec, "kind": self.kind, **asdict(self.columns)}


def list_items(source: Source) -> Iterator[Item]:
    """Every picture of a source, in an order that is always the same.

    Raises:
        DatasetError: nothing there, nothing readable, or a kind that does not fit.
    """
    if not source.spec.strip():
        raise DatasetError("an empty name is no source; name a folder, file or pattern.")
    if source.kind not in (None, *KINDS):
        raise DatasetError(f"--kind {source.kind!r} is unknown; it can be {', '.join(KINDS)}.")
    files = Files(source.spec, source.options)
    found, root = _find(files, source.spec)
    kind = source.kind or _kind(files, found, root)
    if kind == "hf":
        yield from _hf(files, root or files.path, source)
        return
    if kind not in ("tar", "parquet", "csv") and source.columns.targets:
        raise DatasetError(
            f"{source.spec} is a folder of pictures and has no columns; give --targets column: "
            "with a CSV, Parquet, tar or Hugging Face source."
        )
    count = 0
    chosen: Iterator[File] | list[File] = files.walk(root) if root is not None else found
    base = root if root is not None else _common(found)
    for file in chosen:
        if not _fits(file.path, kind):
            if root is None:
                raise DatasetError(f"{file.path} is no {_NAMES[kind]} by its name; pass --kind.")
            continue
        count += 1
        name = posixpath.relpath(file.path, base) if base else file.path
        yield from _items(files, file, _printable(name), kind, source)
    if not count:
        raise DatasetError(f"there is no {_NAMES[kind]} in {source.spec}.")


_NAMES = {
    "folder": "picture",
    "tar": "tar file",
    "parquet": "Parquet file",
    "csv": "CSV file",
    "hf": "Hugging Face data set",
}


def _find(files: Files, spec: str) -> tuple[list[File], str | None]:
    """The files a name means, or the folder it names."""
    if has_pattern(spec) and not files.fs.exists(files.path):
        found = files.glob(files.path)
        if not found:
            raise DatasetError(f"no file matches {spec!r}.")
        return found, None
    if files.is_dir(files.path):
        return [], files.path
    return [files.info(files.path)], None


def _kind(files: Files, found: list[File], root: str | None) -> str:
    if root is not None:
        if any(files.fs.exists(posixpath.join(root, name)) for name in _HF):
            return "hf"
        for file in files.walk(root):
            kind = _kind_by_name(file.path)
            if kind is not None and kind != "csv":
                return kind
        raise DatasetError(
            f"there is no picture, tar file, Parquet file or Hugging Face data set in {root}."
        )
    kind = _kind_by_name(found[0].path)
    if kind is None:
        raise DatasetError(
            f"{found[0].path} is no source by its name (a picture, .tar, .parquet, .csv); pass "
            "--kind."
        )
    return kind


def _kind_by_name(path: str) -> str | None:
    return next((kind for kind in ("folder", "tar", "parquet", "csv") if _fits(path, kind)), None)


def _fits(path: str, kind: str) -> bool:
    name = path.lower()
    if kind == "folder":
        return posixpath.splitext(name)[1] in SUFFIXES
    return name.endswith({"tar": TAR_SUFFIXES, "parquet": (".parquet", ".pq"), "csv": _CSV}[kind])


def _items(files: Files, file: File, name: str, kind: str, source: Source) -> Iterator[Item]:
    options = dict(source.options)
    if kind == "folder":
        yield Item(
            name, _printable(file.path), files.url(file.path), None, file.size, None, file.stamp
        )
    elif kind == "tar":
        yield from list_tar(files, file, name, options, source.columns.targets)
    elif kind == "parquet":
        yield from list_parquet(files, file, name, options, source.columns)
    else:
        yield from list_csv(files, file, name, options, source.columns)


def _hf(files: Files, root: str, source: Source) -> Iterator[Item]:
    """The rows of a data set that `datasets` saved to disk, or of all its splits."""
    splits = _json(files, posixpath.join(root, "dataset_dict.json"))
    names = splits.get("splits", []) if splits else [""]
    if not isinstance(names, list) or not all(_plain(name) for name in names if name):
        raise DatasetError(f"{root} is no Hugging Face data set: its splits are no folder names.")
    for split in names:
        folder = posixpath.join(root, split) if split else root
        state = _json(files, posixpath.join(folder, "state.json"))
        try:
            parts = [entry["filename"] for entry in (state or {})["_data_files"]]
        except (KeyError, TypeError):
            parts = [None]
        if not all(_plain(part) for part in parts):
            raise DatasetError(
                f"{folder} is no Hugging Face data set that save_to_disk wrote: its state.json "
                "lists no data files."
            )
        for number, part in enumerate(parts):
            file = files.info(posixpath.join(folder, part))
            label = f"{split}/{number}" if split else str(number)
            yield from list_arrow(files, file, label, dict(source.options), source.columns)


def _json(files: Files, path: str) -> dict[str, Any] | None:
    try:
        found = json.loads(files.content(path))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _plain(name: Any) -> bool:
    """Whether a name from a file is one of a file beside it."""
    return (
        isinstance(name, str) and name not in ("", ".", "..") and posixpath.basename(name) == name
    )


def _common(found: list[File]) -> str:
    folders = {posixpath.dirname(file.path) for file in found}
    return posixpath.commonpath(folders) if len(folders) > 1 else next(iter(folders))


def _printable(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
