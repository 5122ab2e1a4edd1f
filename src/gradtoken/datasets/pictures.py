"""Reading data set files with one clear error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from gradtoken.errors import DatasetError, ImageError
from gradtoken.images.load_image import load_turned, read_file

_Read = TypeVar("_Read")


def read_picture(path: Path) -> Image.Image:
    """An image as `explain` reads it: upright 8-bit RGB.

    Raises:
        DatasetError: missing or unreadable.
    """
    return read_turned(path)[0]


def read_turned(path: Path) -> tuple[Image.Image, int]:
    """An image as `explain` reads it, and the EXIF orientation of the stored pixels.

    Raises:
        DatasetError: missing or unreadable.
    """
    return _read(path, load_turned)


def read_indices(path: Path) -> np.ndarray[Any, Any]:
    """A palette picture's class numbers (height, width).

    Raises:
        DatasetError: missing, unreadable, or not of numbers.
    """
    picture = _read(path, lambda path: read_file(path, _loaded))
    if picture.mode not in ("P", "L"):
        raise DatasetError(
            f"{path} is no map of class numbers (mode {picture.mode}); use the data set's own PNG."
        )
    return np.asarray(picture)


def require(path: Path, what: str) -> Path:
    """The path, if it is there.

    Raises:
        DatasetError: naming what was to be there.
    """
    if not os.path.exists(path):
        raise DatasetError(f"there is no {what} at {path}; check the data set's folder.")
    return path


def inside(folder: Path, name: Any) -> Path:
    """The path of a file that a data set names, which must lie in the data set's folder.

    Raises:
        DatasetError: a name that leads elsewhere, or none.
    """
    sound = isinstance(name, str) and name and "\0" not in name
    if not sound or Path(name).is_absolute() or ".." in Path(name).parts:
        raise DatasetError(
            f"{name!r} is no file name within {folder}, so the data set does not list its own "
            "files; get it anew."
        )
    return folder / str(name)


def _read(path: Path, read: Callable[[Path], _Read]) -> _Read:
    try:
        path.stat()
    except FileNotFoundError:
        raise DatasetError(f"the picture {path} is missing; the data set is incomplete.") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"the picture {path} cannot be read: {error}.") from None
    try:
        return read(path)
    except ImageError as error:
        raise DatasetError(f"the picture {path} cannot be read: {error}") from None


def _loaded(picture: Image.Image) -> Image.Image:
    picture.load()
    return picture.copy()
