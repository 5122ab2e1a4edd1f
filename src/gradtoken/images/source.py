"""Where a picture is from: what it was given as, and a fingerprint to find it again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from gradtoken.errors import ImageError
from gradtoken.images.channels import as_channels
from gradtoken.images.load_image import load_image
from gradtoken.images.preprocess import Preprocess
from gradtoken.images.rendering import render

_CHUNK = 1 << 20


class Source:
    """One picture.

    Args:
        picture: upright RGB, or what makes it when it is asked for.
        path: the file it is from, if it is from one.
        kind: what it was given as: "file", "picture" or "tensor".
        file_sha256: of the file's bytes as they were when it was read, or of all the values of
            what is shown by some of its channels.
        size: (width, height), where the picture is made later.
    """

    def __init__(
        self,
        picture: Image.Image | Callable[[], Image.Image],
        path: Path | None = None,
        kind: str = "picture",
        file_sha256: str | None = None,
        *,
        size: tuple[int, int] | None = None,
    ) -> None:
        self._make = picture
        self.path = path
        self.kind = kind
        self.file_sha256 = file_sha256
        self._size = size

    @classmethod
    def read(cls, given: Any) -> Source:
        """Read a path, PIL image or array."""
        if isinstance(given, (str, os.PathLike)):
            return cls(load_image(given), Path(given), "file", file_sha256(Path(given)))
        return cls(load_image(given))

    @classmethod
    def later(cls, given: Any, size: tuple[int, int], sha256: str | None) -> Source:
        """A picture that was read before and is read again when it is asked for."""
        if isinstance(given, (str, os.PathLike)):
            path = Path(given)
            return cls(partial(_unchanged, path, sha256), path, "file", sha256, size=size)
        return cls(partial(load_image, given), size=size)

    @classmethod
    def of_array(cls, preprocess: Preprocess, array: np.ndarray[Any, Any]) -> Source:
        """An array (H, W, C) of as many channels as the model takes, shown when it is asked for.

        Raises:
            ImageError: if it is none.
        """
        values = as_channels(array, preprocess.depth)
        make = partial(_rendered, array, preprocess)
        return cls(make, file_sha256=_digest(values), size=(values.shape[-1], values.shape[-2]))

    @classmethod
    def shown(cls, preprocess: Preprocess, tensor: Tensor) -> Source:
        """A preprocessed tensor (C, H, W), made a picture again when it is asked for."""
        size = (tensor.shape[-1], tensor.shape[-2])
        sha256 = None if preprocess.takes_images else _digest(tensor)
        return cls(partial(preprocess.picture, tensor), None, "tensor", sha256, size=size)

    @cached_property
    def picture(self) -> Image.Image:
        """Upright RGB."""
        return self._make if isinstance(self._make, Image.Image) else self._make()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._size or self.picture.size

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
            "size": list(self.size),
            "sha256": self.sha256,
            "sha256_of": "file" if self.path else "pixels",
        }


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        ImageError: if it cannot be read any more.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from None
    return digest.hexdigest()


def _rendered(array: np.ndarray[Any, Any], preprocess: Preprocess) -> Image.Image:
    return render(as_channels(array, preprocess.depth), preprocess.rendering)


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.detach().float().cpu().numpy().tobytes()).hexdigest()


def _unchanged(path: Path, sha256: str | None) -> Image.Image:
    picture = load_image(path)
    if file_sha256(path) != sha256:
        raise ImageError(
            f"{path} changed after it was explained, so its maps do not belong to it; explain it "
            "again."
        )
    return picture


def _printable(path: str) -> str:
    """A path as text; bytes that are no UTF-8 become replacement marks."""
    return os.fsencode(path).decode("utf-8", "replace")
