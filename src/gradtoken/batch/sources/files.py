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
"""Folders inside folders; more are a link that leads back."""
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_MAX_RANGE = 1_000_000
_STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")


class File(NamedTuple):
    """A file found, with what tells it from a later one of the same name."""

    path: str
    size: int
    stamp: str


class Files:
    """The file system that a path or URL is on.

    Args:
        spec: a path, or a URL such as s3://bucket/folder.
        options: what fsspec's file system takes, such as {"anon": True}.

    Raises:
        DatasetError: fsspec knows no such protocol, or cannot open it.
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
        self.fs.invalidate_cache()  # others may have written since this process looked

    def url(self, path: str) -> str:
        """What `fsspec.open` takes for a path of this file system."""
        return path if self.local else str(self.fs.unstrip_protocol(path))

    def content(self, path: str) -> bytes:
        """All bytes of a small file.

        Raises:
            OSError: it is not there, cannot be read, or is a pipe or device.
        """
        if self.local:
            check_plain(path)
        return bytes(self.fs.cat_file(path))

    def is_dir(self, path: str) -> bool:
        return bool(self.fs.isdir(path))

    def info(self, path: str) -> File:
        """One file.

        Raises:
            DatasetError: if there is none.
        """
        try:
            found = self.fs.info(path)
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path} cannot be read: {reason(error)}.") from None
        return _file(found)

    def walk(self, path: str, depth: int = 0) -> Iterator[File]:
        """Every file below a folder, in the order of the names, without holding all at once.

        Raises:
            DatasetError: a folder that cannot be read, or a link that leads back to itself.
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
        """Files that match a pattern with *, **, ? or {000..127}, in order."""
        found: dict[str, File] = {}
        for one in expand_ranges(pattern):
            if not any(mark in one for mark in "*?["):
                found[one] = self.info(one)
                continue
            for entry in self.fs.glob(one, detail=True).values():
                if entry["type"] != "directory":
                    found[entry["name"]] = _file(entry)
        return [found[name] for name in sorted(found)]


def has_pattern(spec: str) -> bool:
    """Whether a name is a pattern of names."""
    return any(mark in spec for mark in "*?[") or bool(_RANGE.search(spec))


def expand_ranges(pattern: str) -> list[str]:
    """`a-{08..10}.tar` as a-08.tar, a-09.tar, a-10.tar.

    Raises:
        DatasetError: if it makes more than a million names.
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
    """A file to read, by path or URL.

    Args:
        options: for fsspec, where it is a URL.
        unpack: on the way, what is compressed by its name.

    Raises:
        OSError: it is not there, cannot be read, or is a pipe or device.
    """
    fsspec = needs("fsspec")
    remote = "://" in file
    if not remote:
        check_plain(file)
    packing = None
    if unpack:
        packing = "gzip" if file.lower().endswith(".tgz") else "infer"
    with fsspec.open(
        file, "rb", compression=packing, **(options or {} if remote else {})
    ) as stream:
        yield stream


def check_plain(path: str) -> None:
    """See that a local path is a file whose end can be waited for.

    Raises:
        OSError: it is not there, or is a pipe, device or folder.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is a pipe, device or folder, not a file")


def inside(root: str, name: str) -> str | None:
    """The path or URL of a name given in a manifest, or None if it leads out of `root`.

    A relative name is below `root`; an absolute one must lie there.
    """
    if not name or "\0" in name:
        return None
    base = _normal(root)
    whole = _normal(name if "://" in name or name.startswith("/") else posixpath.join(root, name))
    if os.name == "nt":
        whole = whole.replace("\\", "/")
    stem = base if base.endswith("/") else base + "/"
    return whole if whole.startswith(stem) else None


def absolute(path: str) -> str:
    """A local path from the root on; a URL as it is."""
    return path if "://" in path else os.path.abspath(path).replace(os.sep, "/")


def file_stamp(path: str) -> str:
    """Tells a local file from a later one of its name; empty for a URL, which is not asked."""
    if "://" in path:
        return ""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns}"


def _normal(path: str) -> str:
    protocol, mark, rest = path.rpartition("://")
    return protocol + mark + posixpath.normpath(rest)


def reason(error: Exception) -> str:
    """Why, in the system's words."""
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _file(entry: Mapping[str, Any]) -> File:
    size = int(entry.get("size") or 0)
    stamp = next((str(entry[key]) for key in _STAMPS if entry.get(key)), "")
    return File(str(entry["name"]), size, f"{size} {stamp}".strip())
