"""Pictures in tar files, such as WebDataset's shards. Nothing is ever unpacked to disk."""

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
"""Bytes of a text or JSON member that are read for its target."""


def list_tar(
    files: Files, file: File, name: str, options: dict[str, Any], column: str | None
) -> Iterator[Item]:
    """The pictures of a tar file in their order, found by reading its headers.

    Args:
        name: what ids begin with.
        column: where targets are: the ending of a text member beside the picture (`cls`), or a key
            of its `json` member.

    Raises:
        DatasetError: if it is no tar file, or a damaged one.
    """
    url = files.url(file.path)
    seen: dict[str, int] = {}
    waiting: list[Item] = []
    notes: dict[str, bytes] = {}
    key = None
    try:
        with opened(url, options) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            headers: Any = archive
            for member in archive:
                headers.members = []  # or every header would be kept
                if not member.isfile():
                    continue
                stem, ending = _split(member.name)
                if stem != key:
                    yield from _with_targets(waiting, notes, column)
                    waiting, notes, key = [], {}, stem
                if "." + ending.rpartition(".")[2].lower() in SUFFIXES:
                    count = seen[member.name] = seen.get(member.name, 0) + 1
                    again = f"#{count}" if count > 1 else ""
                    waiting.append(_item(url, file, name, member, again))
                elif column and ending in (column, "json") and member.size <= _MAX_SIDECAR:
                    found = archive.extractfile(member)
                    notes[ending] = found.read() if found else b""
            yield from _with_targets(waiting, notes, column)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise DatasetError(f"{file.path} is no readable tar file: {error}.") from None


def _item(url: str, file: File, name: str, member: tarfile.TarInfo, again: str) -> Item:
    printable = member.name.encode("utf-8", "replace").decode("utf-8")
    problem = None
    if member.issparse():
        problem = "it is stored with holes, which is not read here; pack it again as a plain file."
    return Item(
        id=f"{name}/{printable}{again}",
        source=f"{file.path}::{printable}",
        file=url,
        offset=member.offset_data,
        size=member.size,
        stamp=file.stamp,
        problem=problem,
    )


def _split(name: str) -> tuple[str, str]:
    """The key and the ending of a member, as WebDataset has it: at the first dot of its name."""
    folder, _, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return posixpath.join(folder, stem), ending


def _with_targets(items: list[Item], notes: dict[str, bytes], column: str | None) -> Iterator[Item]:
    if column is None:
        yield from items
        return
    value: Any = None
    try:
        if column in notes:
            value = notes[column].decode("utf-8").strip()
        elif "json" in notes:
            record = json.loads(notes["json"])
            value = record.get(column) if isinstance(record, dict) else None
    except (ValueError, RecursionError):
        value = None
    text = None if value in (None, "") else json.dumps(value, ensure_ascii=False)
    yield from (item._replace(targets=text) for item in items)
