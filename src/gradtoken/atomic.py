"""Files that appear whole or not at all, also after a crash or a loss of power.

A file is written under a temporary name in its own folder, brought to the disk (fsync), renamed,
and its folder is brought to the disk too. Other modules call the functions as attributes of this
one, so that a test can replace them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gradtoken.errors import OutputError

PREFIX = ".part-"
"""Names of temporary files begin with this, so that those of killed processes can be removed."""
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM)
"""What file systems answer that cannot sync a folder, or not for this user."""


def temporary_path(path: Path) -> Path:
    """An unused name beside a file, with the file's suffix."""
    return path.with_name(f"{PREFIX}{os.urandom(8).hex()}{path.suffix}")


@contextmanager
def writing(path: Path, name: str | None = None, advice: str | None = None) -> Iterator[Path]:
    """Write a file under a temporary name; it replaces `path` if the block ends without an error.

    Missing folders are made. After an error `path` is as before, and the temporary file is removed.

    Args:
        path: of the file.
        name: what to call it in errors; None for its path.
        advice: what an error says last, without a full stop.

    Yields:
        The path of an empty file to write to; the block closes what it opens.

    Raises:
        OutputError: for any `OSError`, also of the block: a full disk, no permission, …
    """
    temporary = temporary_path(path)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                path.lstat()  # or names that no file can have would be noticed after the work
            temporary.open("xb").close()
        except ValueError as error:  # a name with a NUL byte
            raise OSError(str(error)) from None
        yield temporary
        move(temporary, path)
    except OutputError:
        raise
    except OSError as error:
        end = "" if advice is None else f"; {advice}"
        raise OutputError(f"cannot write {name or path}: {reason(error)}{end}.") from None
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)


def write_bytes(
    path: Path, content: bytes, name: str | None = None, advice: str | None = None
) -> None:
    """Write a file whole or not at all; the arguments and errors are those of `writing`."""
    with writing(path, name, advice) as temporary:
        temporary.write_bytes(content)


def move(source: Path, target: Path) -> None:
    """Bring a file to the disk and put it in the place of another one on the same file system.

    Raises:
        OSError: the file cannot be synced or moved; then `target` is as before.
    """
    with source.open("r+b") as file:
        os.fsync(file.fileno())
    os.replace(source, target)
    _sync_folder(target.parent)


def reason(error: OSError) -> str:
    """Why, in the system's words."""
    return error.strerror or str(error) or type(error).__name__


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # where folders cannot be opened
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
