"""Where an upload arrives: in a folder of its own."""

from __future__ import annotations

import os
import secrets
import shutil
from contextvars import ContextVar

_NAME: ContextVar[str] = ContextVar("gradtoken_arrival", default="")


class Arrivals(os.PathLike[str]):
    """The folder of uploads for gradio, which is another one in it during each upload.

    gradio names an upload by its content. Two people's copies of one picture would be one file, and
    gone for the second when the first one's was read.

    Args:
        folder: of all uploads.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __fspath__(self) -> str:
        return os.path.join(self._folder, _NAME.get()) if _NAME.get() else self._folder

    __str__ = __fspath__

    def begin(self) -> None:
        """Give what is uploaded by the request under way a folder of its own."""
        _NAME.set(secrets.token_hex(16))

    def count(self) -> int:
        """How many files the request under way has uploaded."""
        return sum(len(files) for _, _, files in os.walk(self))

    def drop(self) -> None:
        """Delete what the request under way has uploaded."""
        if _NAME.get():
            shutil.rmtree(self, ignore_errors=True)
