"""Reading the image files of a data set."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from gradtoken.errors import DatasetError, ImageError
from gradtoken.images.load_image import load_with_orientation, read_file

_Read = TypeVar("_Read")


def read_image(path: Path) -> Image.Image:
    """An image as `explain` reads it: upright 8-bit RGB.

    Raises:
        DatasetError: missing or unreadable.
    """
    return read_oriented(path)[0]


def read_oriented(path: Path) -> tuple[Image.Image, int]:
    """An image as `explain` reads it, and the EXIF orientation of the stored pixels.

    Raises:
        DatasetError: missing or unreadable.
    """
    return _read(path, load_with_orientation)


def read_indices(path: Path) -> np.ndarray[Any, Any]:
    """The class numbers of a palette image, (height, width).

    Raises:
        DatasetError: missing, unreadable, or not of numbers.
    """
    image = _read(path, lambda path: read_file(path, _loaded))
    if image.mode not in ("P", "L"):
        raise DatasetError(
            f"{path} is no map of class numbers (mode {image.mode}); use the data set's own PNG."
        )
    return np.asarray(image)


def require(path: Path, what: str) -> Path:
    """The path, if it exists.

    Args:
        path: of a file or folder.
        what: a name for it, for the error.

    Raises:
        DatasetError: if it does not exist.
    """
    if not os.path.exists(path):
        raise DatasetError(f"there is no {what} at {path}; check the data set's folder.")
    return path


def inside(folder: Path, name: Any) -> Path:
    """The path of a file that a data set names, which must lie in the data set's folder.

    Raises:
        DatasetError: a path outside of the folder, or no file name.
    """
    valid = isinstance(name, str) and name and "\0" not in name
    if not valid or Path(name).is_absolute() or ".." in Path(name).parts:
        raise DatasetError(
            f"{name!r} is no file name within {folder}, so the data set does not list its own "
            "files; get it anew."
        )
    return folder / str(name)


def _read(path: Path, read: Callable[[Path], _Read]) -> _Read:
    try:
        path.stat()
    except FileNotFoundError:
        raise DatasetError(f"the image {path} is missing; the data set is incomplete.") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"the image {path} cannot be read: {error}.") from None
    try:
        return read(path)
    except ImageError as error:
        raise DatasetError(f"the image {path} cannot be read: {error}") from None


def _loaded(image: Image.Image) -> Image.Image:
    image.load()
    return image.copy()
