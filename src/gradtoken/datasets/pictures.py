"""Reading data set files with one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from gradtoken.errors import DatasetError


def read_picture(path: Path) -> Image.Image:
    """A picture as RGB.

    Raises:
        DatasetError: missing or unreadable.
    """
    return _opened(path).convert("RGB")


def read_indices(path: Path) -> np.ndarray[Any, Any]:
    """A palette picture's class numbers (height, width).

    Raises:
        DatasetError: missing, unreadable, or not of numbers.
    """
    picture = _opened(path)
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
    if not path.exists():
        raise DatasetError(f"there is no {what} at {path}; check the data set's folder.")
    return path


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except FileNotFoundError:
        raise DatasetError(f"the picture {path} is missing; the data set is incomplete.") from None
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise DatasetError(f"the picture {path} cannot be read: {error}.") from None
