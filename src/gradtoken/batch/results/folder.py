"""The folder of a run, on this machine or in an object store."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradtoken import atomic
from gradtoken.batch.sources.files import Files, reason
from gradtoken.errors import OutputError

LOCK = ".lock"
"""The file whose lock keeps other runs out."""
_ADVICE = "what was finished before is kept, make room and run again with --resume"


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
        """The fsspec file system of the folder."""
        return self._files.fs

    def path(self, name: str) -> str:
        """The full path of a file in it."""
        return posixpath.join(self._root, name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all.

        An object store shows an object only when it is complete, so there it is put as it is.

        Raises:
            OutputError: a full disk, no permission, …
        """
        path = self.path(name)
        if self.local:
            atomic.write_bytes(Path(path), content, advice=_ADVICE)
            return
        try:
            self._files.fs.pipe_file(path, content)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {reason(error)}; {_ADVICE}.") from None

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is no such file.

        Raises:
            OutputError: it exists but cannot be read.
        """
        try:
            return self._files.content(self.path(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"cannot read {self.path(name)}: {reason(error)}.") from None

    def sizes(self, folder: str) -> dict[str, int]:
        """The files of a sub-folder and their sizes in bytes, without temporary files."""
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
        """Whether it is empty or does not exist."""
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

    def remove_temporary_files(self, folder: str) -> None:
        """Remove the temporary files of a killed run from a sub-folder."""
        if self.local and os.path.isdir(self.path(folder)):
            for path in Path(self.path(folder)).glob(f"{atomic.PREFIX}*"):
                path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for one run, if it is on this machine.

        The lock is the operating system's, so it ends with a process that is killed.

        Raises:
            OutputError: another run is writing, or the folder cannot be made.
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
