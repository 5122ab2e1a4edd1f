"""Pictures of the web app: uploads, which are read once and deleted, and bundled scenes."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from gradtoken.app.limits import Limits
from gradtoken.datasets import Scene, Scenes
from gradtoken.errors import ImageError
from gradtoken.images.box import Box
from gradtoken.images.load_image import load_image
from gradtoken.images.source import Source

FORMATS = (
    "PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO",
)  # fmt: skip
"""What an upload may be, whatever its name: formats that Pillow decodes by itself."""

SHOWN_SIDE = 640
"""Pictures are shown with at most this many pixels a side."""

SCENES = ((2, 0), (2, 1), (3, 0), (3, 1), (2, 2), (3, 3))
"""The bundled scenes to choose from: how many objects, and which scene of `_SEED`."""

_SEED, _SCENE_SIDE = 5, 448

_GONE = "the uploaded file is not there any more; upload it again."


@dataclass(frozen=True)
class Shown:
    """A picture as it is shown, and what of it the model saw, in the shown picture's pixels."""

    picture: Image.Image
    box: Box

    @classmethod
    def of(cls, picture: Image.Image, box: Box) -> Shown:
        """A picture made small enough to be shown."""
        small = picture.copy()
        small.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
        return cls(small, scaled(box, picture.size, small.size))


def scaled(box: Box, size: tuple[int, int], new: tuple[int, int]) -> Box:
    """The box on a picture that was brought from one (width, height) to another."""
    return Box(*(edge * new[i % 2] / size[i % 2] for i, edge in enumerate(box)))


class Uploads:
    """The folder uploads arrive in.

    Args:
        folder: nothing outside it is read or deleted.
        limits: `file_bytes` and `pixels` of them, and for files nobody came for `idle_seconds` and
            `upload_bytes`.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder.resolve()
        self._limits = limits

    def take(self, path: str) -> Source:
        """Read an upload and delete it, whether it is a picture or not.

        Raises:
            ImageError: no picture, or one beyond the limits, by the name it was uploaded with.
        """
        file = self._find(path)
        if file is None:
            raise ImageError(_GONE)
        try:
            return self._read(file)
        except (ImageError, FileNotFoundError):
            if file.exists():
                raise
            raise ImageError(_GONE) from None
        finally:
            self._delete(file)

    def discard(self, path: str) -> None:
        """Delete an upload, if it is there, without reading it."""
        file = self._find(path)
        if file is not None:
            self._delete(file)

    def _find(self, path: str) -> Path | None:
        try:
            file = Path(path).resolve()
            there = file.is_relative_to(self._folder) and file.is_file()
        except (OSError, ValueError):
            return None
        return file if there else None

    def _read(self, file: Path) -> Source:
        if file.stat().st_size > self._limits.file_bytes:
            raise ImageError(
                f"{file.name} has {file.stat().st_size / 1e6:.1f} MB, above the limit of "
                f"{self._limits.file_bytes / 1e6:.0f} MB; make it smaller first."
            )
        try:
            self._check_format(file)
            picture = load_image(file, max_pixels=self._limits.pixels)
        except ImageError as error:
            raise ImageError(str(error).replace(str(file), file.name)) from None
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return Source(picture, Path(file.name), "file", digest)

    @staticmethod
    def _check_format(file: Path) -> None:
        try:
            with Image.open(file, formats=_formats()):
                pass
        except Image.DecompressionBombError:
            return  # load_image says how many pixels are too many
        except (OSError, ValueError, SyntaxError):
            raise ImageError(
                f"{file.name} is not a picture that is read here; use PNG, JPEG, WebP, TIFF, GIF, "
                "BMP, AVIF or JPEG 2000."
            ) from None

    def _delete(self, file: Path) -> None:
        file.unlink(missing_ok=True)
        for folder in file.parents:
            if folder == self._folder:
                return
            try:
                folder.rmdir()
            except OSError:  # it is not empty, or another request was first
                return

    def sweep(self) -> None:
        """Delete what was uploaded and never read: what is too old, and too much."""
        oldest = time.time() - self._limits.idle_seconds
        room = self._limits.upload_bytes
        for arrived, size, path in sorted(self._there(), reverse=True):
            room -= size
            if arrived >= oldest and room >= 0:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _there(self) -> Iterator[tuple[float, int, Path]]:
        """When each upload arrived, its bytes, and where it is."""
        for path in self._folder.iterdir():
            try:
                files = path.rglob("*") if path.is_dir() else [path]
                size = sum(file.stat().st_size for file in files)
                yield path.stat().st_mtime, size, path
            except FileNotFoundError:  # it was read meanwhile
                continue


@cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@cache
def scene(index: int) -> Scene:
    """One of the bundled scenes to choose from."""
    if not 0 <= index < len(SCENES):
        raise ImageError(f"there is no scene {index}; choose one of {len(SCENES)}.")
    objects, place = SCENES[index]
    return Scenes("test", size=_SCENE_SIDE, objects=objects, seed=_SEED)[place]


def scene_source(index: int) -> Source:
    """A bundled scene as a picture to explain."""
    return Source(scene(index).image)
