"""The folder a run is written to: files appear whole or not at all."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradtoken.batch.sources.files import Files, reason
from gradtoken.errors import OutputError

_PART = ".part-"


class Folder:
    """A folder on this machine, or one that fsspec writes to.

    Args:
        spec: a path, or a URL such as s3://bucket/folder.
        options: for fsspec.
    """

    def __init__(self, spec: str, options: Mapping[str, Any] | None = None) -> None:
        self.name = spec
        self._files = Files(spec, options)
        self._root = self._files.path.rstrip("/") or "/"

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return self._files.local

    @property
    def filesystem(self) -> Any:
        """The fsspec file system that it is on."""
        return self._files.fs

    def path(self, name: str) -> str:
        """The full path of a file in it."""
        return posixpath.join(self._root, name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file: under another name first, to the disk, and then renamed.

        An object store shows an object only when it is complete, so there it is put as it is.

        Raises:
            OutputError: a full disk, no permission, …; nothing is left half-written.
        """
        try:
            if self.local:
                _write_durably(Path(self.path(name)), content)
            else:
                self._files.fs.pipe_file(self.path(name), content)
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path(name)}: {reason(error)}; what was finished before is "
                "kept, make room and run again with --resume."
            ) from None

    def read(self, name: str) -> bytes | None:
        """A file's content, or None if there is no such file.

        Raises:
            OutputError: if it is there but cannot be read.
        """
        try:
            return self._files.content(self.path(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"cannot read {self.path(name)}: {reason(error)}.") from None

    def sizes(self, folder: str) -> dict[str, int]:
        """The files of a sub-folder and their sizes in bytes; those half-written are left out."""
        path = self.path(folder)
        try:
            self._files.fs.invalidate_cache(path)
            entries = self._files.fs.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise OutputError(f"cannot read {path}: {reason(error)}.") from None
        names = {
            posixpath.basename(e["name"]): int(e["size"] or 0)
            for e in entries
            if e["type"] == "file" or not self.local
        }
        return {name: size for name, size in names.items() if not name.startswith(".")}

    def is_empty(self) -> bool:
        """Whether nothing is in it, or it is not there."""
        try:
            names = [
                posixpath.basename(e.rstrip("/")) for e in self._files.fs.ls(self._root, False)
            ]
        except (FileNotFoundError, NotADirectoryError):
            return not self._files.fs.exists(self._root)
        return all(name == LOCK for name in names)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._files.fs.rm_file(self.path(name))

    def sweep(self, folder: str) -> None:
        """Remove what a killed run left half-written in a sub-folder."""
        if self.local and os.path.isdir(self.path(folder)):
            for path in Path(self.path(folder)).glob(f"{_PART}*"):
                path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out while one writes here, if it is on this machine.

        The lock is the system's, so it is gone with a process that was killed.

        Raises:
            OutputError: if another run is writing, or the folder cannot be made.
        """
        if not self.local or os.name == "nt":
            yield
            return
        import fcntl

        try:
            os.makedirs(self._root, exist_ok=True)
            handle = os.open(self.path(LOCK), os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"cannot write to {self.name}: {reason(error)}.") from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise OutputError(f"another run is writing to {self.name}; wait for it.") from None
            yield
        finally:
            os.close(handle)


LOCK = ".lock"


def _write_durably(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(_PART + path.name)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    if os.name != "nt":
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
