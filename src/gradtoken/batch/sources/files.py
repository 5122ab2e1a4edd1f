"""Files by path or URL, through fsspec."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from gradtoken.errors import DatasetError
from gradtoken.extras import needs

MAX_DEPTH = 64
"""Depth of nested folders; a greater one comes from a link that leads back."""
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_MAX_RANGE = 1_000_000
"""Names that a range such as {000..127} can have."""
_STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")


class File(NamedTuple):
    """A file.

    Args:
        path: in its file system.
        size: in bytes.
        stamp: size and time or ETag, which tell it from a later file of the same name.
    """

    path: str
    size: int
    stamp: str


class Files:
    """The file system of a path or URL.

    Args:
        spec: a path, or a URL such as s3://bucket/folder.
        options: of fsspec's file system, such as {"anon": True}.

    Raises:
        DatasetError: fsspec does not know the protocol, or cannot open it.
    """

    def __init__(self, spec: str, options: Mapping[str, Any] | None = None) -> None:
        core = needs("fsspec.core")
        remote = "://" in spec
        try:
            self.fs, self.path = core.url_to_fs(spec, **(options or {} if remote else {}))
        except (ValueError, ImportError, TypeError) as error:
            raise DatasetError(f"{spec} cannot be opened: {error}.") from None
        local = needs("fsspec.implementations.local")
        self.local = isinstance(self.fs, local.LocalFileSystem)
        self.fs.invalidate_cache()  # other processes may have written since

    def url(self, path: str) -> str:
        """The path or URL that `fsspec.open` takes for a path of this file system."""
        return path if self.local else str(self.fs.unstrip_protocol(path))

    def content(self, path: str) -> bytes:
        """All bytes of a small file.

        Raises:
            OSError: it does not exist, cannot be read, or is a pipe or device.
        """
        if self.local:
            check_plain(path)
        return bytes(self.fs.cat_file(path))

    def is_dir(self, path: str) -> bool:
        """Whether there is a folder at a path."""
        return bool(self.fs.isdir(path))

    def info(self, path: str) -> File:
        """The file at a path.

        Raises:
            DatasetError: there is none.
        """
        try:
            entry = self.fs.info(path)
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path} cannot be read: {reason(error)}.") from None
        return _file(entry)

    def walk(self, path: str, depth: int = 0) -> Iterator[File]:
        """Yield every file below a folder, sorted by name; hidden ones are skipped.

        Raises:
            DatasetError: a folder cannot be read, or a link leads back to a folder above it.
        """
        if depth > MAX_DEPTH:
            raise DatasetError(
                f"{path} is more than {MAX_DEPTH} folders deep, so a link probably leads back to "
                "a folder above; remove it."
            )
        try:
            entries = sorted(self.fs.ls(path, detail=True), key=lambda entry: entry["name"])
        except OSError as error:
            raise DatasetError(f"the folder {path} cannot be read: {reason(error)}.") from None
        for entry in entries:
            if posixpath.basename(entry["name"].rstrip("/")).startswith("."):
                continue
            if entry["type"] == "directory":
                if entry["name"].rstrip("/") != path.rstrip("/"):
                    yield from self.walk(entry["name"], depth + 1)
            else:
                yield _file(entry)

    def glob(self, pattern: str) -> list[File]:
        """Files that match a pattern with *, **, ? or {000..127}, sorted by name.

        Raises:
            DatasetError: a range is too long, or one of its files does not exist.
        """
        files: dict[str, File] = {}
        for name in expand_ranges(pattern):
            if not any(mark in name for mark in "*?["):
                files[name] = self.info(name)
                continue
            for entry in self.fs.glob(name, detail=True).values():
                if entry["type"] != "directory":
                    files[entry["name"]] = _file(entry)
        return [files[name] for name in sorted(files)]


def has_pattern(spec: str) -> bool:
    """Whether a name is a pattern."""
    return any(mark in spec for mark in "*?[") or bool(_RANGE.search(spec))


def expand_ranges(pattern: str) -> list[str]:
    """Expand `a-{08..10}.tar` to a-08.tar, a-09.tar, a-10.tar.

    Raises:
        DatasetError: there are more than a million names.
    """
    match = _RANGE.search(pattern)
    if not match:
        return [pattern]
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < _MAX_RANGE:
        raise DatasetError(f"the range {match[0]} runs backwards or is too long; use * instead.")
    names = [
        f"{pattern[: match.start()]}{number:0{len(match[1])}d}{pattern[match.end() :]}"
        for number in range(first, last + 1)
    ]
    return [full for name in names for full in expand_ranges(name)]


@contextmanager
def opened(
    file: str, options: Mapping[str, Any] | None = None, *, unpack: bool = True
) -> Iterator[Any]:
    """Open a file to read.

    Args:
        file: a path or URL.
        options: for fsspec, if it is a URL.
        unpack: decompress a file whose name says that it is compressed.

    Raises:
        OSError: it does not exist, cannot be read, or is a pipe or device.
    """
    fsspec = needs("fsspec")
    remote = "://" in file
    if not remote:
        check_plain(file)
    compression = None
    if unpack:
        compression = "gzip" if file.lower().endswith(".tgz") else "infer"
    with fsspec.open(
        file, "rb", compression=compression, **(options or {} if remote else {})
    ) as stream:
        yield stream


def check_plain(path: str) -> None:
    """Check that a local path is a regular file, since reading others may never end.

    Raises:
        OSError: it does not exist, or is a pipe, device or folder.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is a pipe, device or folder, not a file")


def inside(root: str, name: str) -> str | None:
    """The path or URL of a name in a table, or None if it leads out of `root`.

    Args:
        root: a folder, as path or URL.
        name: relative to `root`, or absolute and below it.
    """
    if not name or "\0" in name:
        return None
    base = _normal(root)
    path = _normal(name if "://" in name or name.startswith("/") else posixpath.join(root, name))
    if os.name == "nt":
        path = path.replace("\\", "/")
    stem = base if base.endswith("/") else base + "/"
    return path if path.startswith(stem) else None


def absolute(path: str) -> str:
    """The absolute form of a local path; a URL as it is."""
    return path if "://" in path else os.path.abspath(path).replace(os.sep, "/")


def file_stamp(path: str) -> str:
    """Size and time of a local file, which tell it from a later one; empty for a URL."""
    if "://" in path:
        return ""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _normal(path: str) -> str:
    protocol, mark, rest = path.rpartition("://")
    return protocol + mark + posixpath.normpath(rest)


def reason(error: Exception) -> str:
    """The cause of an error, in the system's words."""
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _file(entry: Mapping[str, Any]) -> File:
    size = int(entry.get("size") or 0)
    stamp = next((str(entry[key]) for key in _STAMPS if entry.get(key)), "")
    return File(str(entry["name"]), size, f"{size} {stamp}".strip())
