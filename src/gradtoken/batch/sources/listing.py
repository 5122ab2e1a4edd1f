"""Sources of images: their kind, and the list of their items."""

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
    """Where the images of a run are.

    Args:
        spec: a folder, file or pattern; a path or a URL.
        kind: one of `KINDS`; None detects it.
        columns: the columns of tables; `columns.targets` also for tar files.
        options: of fsspec's file system; never written to the results, since it may hold keys.
    """

    spec: str
    kind: str | None = None
    columns: Columns = field(default_factory=Columns)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def settings(self) -> dict[str, Any]:
        """Everything the list of images depends on, as plain data."""
        return {"spec": self.spec, "kind": self.kind, **asdict(self.columns)}


def list_items(source: Source) -> Iterator[Item]:
    """Yield every image of a source, always in the same order.

    Raises:
        DatasetError: the source does not exist, cannot be read, or is of another kind.
    """
    if not source.spec.strip():
        raise DatasetError("an empty name is no source; name a folder, file or pattern.")
    if source.kind not in (None, *KINDS):
        raise DatasetError(f"--kind {source.kind!r} is unknown; it can be {', '.join(KINDS)}.")
    files = Files(source.spec, source.options)
    matches, root = _find(files, source.spec)
    kind = source.kind or _detect_kind(files, matches, root)
    if kind == "hf":
        yield from _hf(files, root or files.path, source)
        return
    if kind not in ("tar", "parquet", "csv") and source.columns.targets:
        raise DatasetError(
            f"{source.spec} is a folder of images and has no columns; give --targets column: "
            "with a CSV, Parquet, tar or Hugging Face source."
        )
    count = 0
    candidates: Iterator[File] | list[File] = files.walk(root) if root is not None else matches
    base = root if root is not None else _common_folder(matches)
    for file in candidates:
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
    "folder": "image",
    "tar": "tar file",
    "parquet": "Parquet file",
    "csv": "CSV file",
    "hf": "Hugging Face data set",
}


def _find(files: Files, spec: str) -> tuple[list[File], str | None]:
    """The files that a name or pattern matches, or the folder with that name."""
    if has_pattern(spec) and not files.fs.exists(files.path):
        matches = files.glob(files.path)
        if not matches:
            raise DatasetError(f"no file matches {spec!r}.")
        return matches, None
    if files.is_dir(files.path):
        return [], files.path
    return [files.info(files.path)], None


def _detect_kind(files: Files, matches: list[File], root: str | None) -> str:
    if root is not None:
        if any(files.fs.exists(posixpath.join(root, name)) for name in _HF):
            return "hf"
        for file in files.walk(root):
            kind = _kind_by_name(file.path)
            if kind is not None and kind != "csv":
                return kind
        raise DatasetError(
            f"there is no image, tar file, Parquet file or Hugging Face data set in {root}."
        )
    kind = _kind_by_name(matches[0].path)
    if kind is None:
        raise DatasetError(
            f"{matches[0].path} is no source by its name (an image, .tar, .parquet, .csv); pass "
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
    """The rows of a data set that `save_to_disk` of `datasets` wrote, or of all its splits."""
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
        record = json.loads(files.content(path))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _plain(name: Any) -> bool:
    """Whether a name is that of a file or folder, not a path."""
    return (
        isinstance(name, str) and name not in ("", ".", "..") and posixpath.basename(name) == name
    )


def _common_folder(files: list[File]) -> str:
    folders = {posixpath.dirname(file.path) for file in files}
    return posixpath.commonpath(folders) if len(folders) > 1 else next(iter(folders))


def _printable(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
