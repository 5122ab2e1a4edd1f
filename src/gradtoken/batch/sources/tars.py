"""Images in tar files, such as WebDataset's shards. Nothing is unpacked to disk."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator
from typing import Any

from gradtoken.batch.sources.files import File, Files, opened
from gradtoken.batch.sources.item import Item
from gradtoken.errors import DatasetError
from gradtoken.images.load_image import SUFFIXES

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_MAX_SIDECAR = 1 << 20
"""Largest text or JSON member, in bytes, that is read for targets."""


def list_tar(
    files: Files, file: File, name: str, options: dict[str, Any], column: str | None
) -> Iterator[Item]:
    """Yield the images of a tar file in their order, by reading its headers.

    Args:
        files: the file system.
        file: the tar file.
        name: that ids begin with.
        options: for fsspec.
        column: where targets are: the extension of a text member beside the image (`cls`), or a key
            of its `json` member.

    Raises:
        DatasetError: it is no tar file, or is damaged.
    """
    url = files.url(file.path)
    counts: dict[str, int] = {}
    images: list[Item] = []
    sidecars: dict[str, bytes] = {}
    key = None
    try:
        with opened(url, options) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            headers: Any = archive
            for member in archive:
                headers.members = []  # tarfile would keep every header
                if not member.isfile():
                    continue
                stem, extension = _split(member.name)
                if stem != key:
                    yield from _with_targets(images, sidecars, column)
                    images, sidecars, key = [], {}, stem
                if "." + extension.rpartition(".")[2].lower() in SUFFIXES:
                    count = counts[member.name] = counts.get(member.name, 0) + 1
                    repetition = f"#{count}" if count > 1 else ""
                    images.append(_item(url, file, name, member, repetition))
                elif column and extension in (column, "json") and member.size <= _MAX_SIDECAR:
                    content = archive.extractfile(member)
                    sidecars[extension] = content.read() if content else b""
            yield from _with_targets(images, sidecars, column)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise DatasetError(f"{file.path} is no readable tar file: {error}.") from None


def _item(url: str, file: File, name: str, member: tarfile.TarInfo, repetition: str) -> Item:
    printable = member.name.encode("utf-8", "replace").decode("utf-8")
    problem = None
    if member.issparse():
        problem = "it is stored with holes, which is not read here; pack it again as a plain file."
    return Item(
        id=f"{name}/{printable}{repetition}",
        source=f"{file.path}::{printable}",
        file=url,
        offset=member.offset_data,
        size=member.size,
        stamp=file.stamp,
        problem=problem,
    )


def _split(name: str) -> tuple[str, str]:
    """The key and the extension of a member, which WebDataset splits at the first dot."""
    folder, _, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return posixpath.join(folder, stem), extension


def _with_targets(
    items: list[Item], sidecars: dict[str, bytes], column: str | None
) -> Iterator[Item]:
    """The images of one key, with the targets from their sidecar files."""
    if column is None:
        yield from items
        return
    value: Any = None
    try:
        if column in sidecars:
            value = sidecars[column].decode("utf-8").strip()
        elif "json" in sidecars:
            record = json.loads(sidecars["json"])
            value = record.get(column) if isinstance(record, dict) else None
    except (ValueError, RecursionError):
        value = None
    text = None if value in (None, "") else json.dumps(value, ensure_ascii=False)
    yield from (item._replace(targets=text) for item in items)
