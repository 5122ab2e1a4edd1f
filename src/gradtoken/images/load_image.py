"""Reading images: files, bytes, PIL images and arrays as upright 8-bit RGB."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from gradtoken.errors import ImageError

MAX_PIXELS = 100_000_000
"""Images of more pixels than this raise an error before they are decoded."""

FILE_CHANNELS = (1, 3, 4)
"""Channels of arrays that are read as image files are: grey, RGB, and RGB with transparency."""

_FORMATS = "png jpg jpeg jpe webp bmp gif tif tiff ppm pgm jp2 avif tga ico"
SUFFIXES = frozenset(f".{name}" for name in _FORMATS.split())
"""Suffixes of image files."""

ORIENTATION = ExifTags.Base.Orientation
"""The EXIF tag of an image's orientation."""

_PROGRAMS = ("EPS", "WMF")
"""Formats that Pillow hands to Ghostscript, or Windows to its own interpreter."""
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}


def load_image(source: Any, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image as upright RGB.

    Args:
        source: a path, the bytes of an image file, a PIL image, or an array of shape (H, W),
            (H, W, 1), (H, W, 3) or (H, W, 4) holding uint8 in 0..255, uint16 in 0..65535 or floats
            in 0..1.
        max_pixels: larger images raise an error before they are decoded.

    Returns:
        A PIL image in mode RGB: EXIF orientation applied, first frame of an animation,
        transparency composed on white, 16 bit scaled to 8.

    Raises:
        ImageError: the image is missing, unreadable, truncated, too large or of a wrong shape.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return read_file(path, lambda image: _to_rgb(image, str(path)), max_pixels=max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source), max_pixels)
    if isinstance(source, Image.Image):
        _check_size(source, "the image", max_pixels)
        return _to_rgb(source, "the image")
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    raise ImageError(
        f"cannot read an image from {type(source).__name__}; give a path, a file's bytes, a PIL "
        "image, a NumPy array or a preprocessed tensor."
    )


def load_with_orientation(path: Path) -> tuple[Image.Image, int]:
    """As `load_image`, with the EXIF orientation: for masks drawn on the pixels as stored.

    Args:
        path: the file.

    Returns:
        The upright RGB image, and the EXIF orientation (1 to 8; 1 is upright) of the stored pixels.

    Raises:
        ImageError: as for `load_image`.
    """
    orientation = 1

    def use(image: Image.Image) -> Image.Image:
        nonlocal orientation
        image.load()
        orientation = image.getexif().get(ORIENTATION, 1)
        return _to_rgb(image, str(path))

    return read_file(path, use), orientation


def _from_bytes(content: bytes, max_pixels: int) -> Image.Image:
    name = "the file"
    if not content:
        raise ImageError(f"{name} is empty (0 bytes), so there is no image in it.")
    return _decoded(io.BytesIO(content), name, lambda image: _to_rgb(image, name), max_pixels)


def read_file(
    path: Path, use: Callable[[Image.Image], Image.Image], *, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Open an image file, check its size, and only then decode it.

    Args:
        path: the file.
        use: decodes the image; what it raises on damaged bytes becomes an `ImageError`.
        max_pixels: larger images raise an error before `use`.

    Raises:
        ImageError: the file is missing, no image, truncated or too large.
    """
    _check_file(path)
    return _decoded(path, str(path), use, max_pixels)


def _decoded(
    source: Path | io.BytesIO,
    name: str,
    use: Callable[[Image.Image], Image.Image],
    max_pixels: int,
) -> Image.Image:
    try:
        with Image.open(source, formats=_formats()) as image:
            _check_size(image, name, max_pixels)
            return use(image)
    except ImageError:
        raise
    except PermissionError:
        raise ImageError(f"{name} cannot be read: permission denied.") from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{name} is not an image in a format Pillow reads (PNG, JPEG, WebP, TIFF, GIF, …)."
        ) from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"{name} has more pixels than the limit of {max_pixels:,}; make it smaller first."
        ) from None
    except Exception as error:  # each format's decoder raises what it likes on damaged bytes  # noqa: BLE001
        raise ImageError(f"{name} is damaged or truncated: {error}.") from None


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist; check the path.") from None
    except PermissionError:
        raise ImageError(f"{path} cannot be read: permission denied.") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{str(path)!r} is no path to a file: {error}.") from None
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path} is a folder, not an image; name the images inside it.")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path} is a pipe or device, not an image; give a plain file.")
    if status.st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes), so there is no image in it.")


@cache
def _formats() -> list[str]:
    """The formats of Pillow and its plugins, except those whose files are programs."""
    Image.init()
    return [name for name in Image.ID if name not in _PROGRAMS]


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width}x{height}).")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width}x{height} pixels, above the limit of {max_pixels:,}; "
            "make it smaller first."
        )


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            return _from_array(np.asarray(image), MAX_PIXELS, name)
        if image.mode in _SIXTEEN_BIT_MODES:
            values = np.asarray(image)
            values = values if values.dtype.itemsize == 2 else values.clip(0, 65535)
            image = Image.fromarray(_eight_bits(values))
        elif image.mode in _PREMULTIPLIED:
            image = image.convert(_PREMULTIPLIED[image.mode])
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            canvas = Image.new("RGBA", rgba.size, "white")
            canvas.alpha_composite(rgba)
            image = canvas
        return image.convert("RGB")
    except ImageError:
        raise
    except Exception as error:  # each format's decoder raises what it likes on damaged bytes  # noqa: BLE001
        raise ImageError(f"{name} is damaged or truncated: {error}.") from None


def _eight_bits(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """0..65535 as the nearest of 0..255, without the memory that floats would take."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_array(
    array: np.ndarray[Any, Any], max_pixels: int, name: str = "the array"
) -> Image.Image:
    array = np.asarray(array)  # of a masked array, what is behind the mask too
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in FILE_CHANNELS or 0 in array.shape:
        raise ImageError(
            f"an array of shape {tuple(array.shape)} is not an image; give (H, W), (H, W, 3) or "
            "(H, W, 4), and preprocessed batches as a torch tensor (B, 3, H, W)."
        )
    if array.shape[0] * array.shape[1] > max_pixels:
        raise ImageError(
            f"{name} has {array.shape[1]}x{array.shape[0]} pixels, above the limit of "
            f"{max_pixels:,}; make it smaller first."
        )
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array = _eight_bits(array)
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ImageError(f"{name} holds NaN or infinite values; clean it first.")
        if array.min() < 0 or array.max() > 1:
            raise ImageError(
                f"{name} holds floats from {array.min():.3g} to "
                f"{array.max():.3g} where a float image must hold 0 to 1; scale it."
            )
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(
            f"an array of {array.dtype} is not an image; use uint8, uint16 or floats in 0..1."
        )
    squeezed = array[..., 0] if array.shape[-1] == 1 else array
    return _to_rgb(Image.fromarray(np.ascontiguousarray(squeezed)), name)
