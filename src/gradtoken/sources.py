"""Where a picture is from: what it was given as, and a fingerprint to find it again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from gradtoken.errors import ImageError
from gradtoken.images import load_image


@dataclass(frozen=True)
class Source:
    """One picture.

    Args:
        picture: upright RGB.
        path: the file it is from, if it is from one.
        kind: what it was given as: "file", "picture" or "tensor".
        file_sha256: of the file's bytes as they were when it was read.
    """

    picture: Image.Image
    path: Path | None = None
    kind: str = "picture"
    file_sha256: str | None = None

    @classmethod
    def read(cls, given: Any) -> Source:
        """Read a path, PIL image or array."""
        if isinstance(given, (str, os.PathLike)):
            picture = load_image(given)
            path = Path(given)
            return cls(picture, path, "file", _file_sha256(path))
        return cls(load_image(given))

    @property
    def name(self) -> str:
        """The file's name, or what the picture was given as."""
        return _printable(self.path.name) if self.path else self.kind

    @cached_property
    def sha256(self) -> str:
        """Of the file's bytes, or of the RGB pixels where there is no file."""
        return self.file_sha256 or hashlib.sha256(self.picture.tobytes()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {
            "file": _printable(str(self.path)) if self.path else None,
            "kind": self.kind,
            "size": list(self.picture.size),
            "sha256": self.sha256,
            "sha256_of": "file" if self.path else "pixels",
        }


def _file_sha256(path: Path) -> str:
    """Of a file's bytes, read in pieces.

    Raises:
        ImageError: if it cannot be read any more.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from None
    return digest.hexdigest()


def _printable(path: str) -> str:
    """A path as text; bytes that are no UTF-8 become replacement marks."""
    return os.fsencode(path).decode("utf-8", "replace")
