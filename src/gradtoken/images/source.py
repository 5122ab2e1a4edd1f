"""The origin of an image, its fingerprint, and the box that its tokens cover."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from gradtoken.errors import ImageError
from gradtoken.images.box import Box
from gradtoken.images.channels import as_channels
from gradtoken.images.load_image import load_image
from gradtoken.images.patch_grid import PatchGrid
from gradtoken.images.preprocess import Preprocess
from gradtoken.images.rendering import render

_CHUNK = 1 << 20


class Source:
    """An image and its origin.

    Args:
        image: upright RGB, or a function that makes it on first use.
        path: of its file, if it has one.
        kind: the type of the input: "file", "picture" (a PIL image or array) or "tensor".
        file_sha256: of the file's bytes when it was read, or of all values of an input of which
            only some channels are shown.
        size: (width, height), where the image is made on first use.
    """

    def __init__(
        self,
        image: Image.Image | Callable[[], Image.Image],
        path: Path | None = None,
        kind: str = "picture",
        file_sha256: str | None = None,
        *,
        size: tuple[int, int] | None = None,
    ) -> None:
        self._make = image
        self.path = path
        self.kind = kind
        self.file_sha256 = file_sha256
        self._size = size

    @classmethod
    def read(cls, item: Any) -> Source:
        """Read a path, PIL image or array.

        Raises:
            ImageError: as `load_image`.
        """
        if isinstance(item, (str, os.PathLike)):
            return cls(load_image(item), Path(item), "file", file_sha256(Path(item)))
        return cls(load_image(item))

    @classmethod
    def deferred(cls, item: Any, size: tuple[int, int], sha256: str | None) -> Source:
        """An image that was read before and is read again on first use."""
        if isinstance(item, (str, os.PathLike)):
            path = Path(item)
            return cls(partial(_load_unchanged, path, sha256), path, "file", sha256, size=size)
        return cls(partial(load_image, item), size=size)

    @classmethod
    def from_array(cls, preprocess: Preprocess, array: np.ndarray[Any, Any]) -> Source:
        """An array (H, W, C) of the model's channels, rendered on first use.

        Raises:
            ImageError: another shape, number of channels or type.
        """
        values = as_channels(array, preprocess.depth)
        make = partial(_rendered, array, preprocess)
        return cls(make, file_sha256=_digest(values), size=(values.shape[-1], values.shape[-2]))

    @classmethod
    def from_tensor(cls, preprocess: Preprocess, tensor: Tensor) -> Source:
        """A preprocessed tensor (C, H, W), made an image again on first use."""
        size = (tensor.shape[-1], tensor.shape[-2])
        sha256 = None if preprocess.takes_images else _digest(tensor)
        return cls(partial(preprocess.to_image, tensor), None, "tensor", sha256, size=size)

    @cached_property
    def image(self) -> Image.Image:
        """Upright RGB."""
        return self._make if isinstance(self._make, Image.Image) else self._make()

    @property
    def picture(self) -> Image.Image:
        """Deprecated name of `image`."""
        warnings.warn(
            "Source.picture is deprecated; use Source.image.", DeprecationWarning, stacklevel=2
        )
        return self.image

    @property
    def in_memory(self) -> bool:
        """Whether the image is held in memory, or is still to be made."""
        return isinstance(self._make, Image.Image) or "image" in vars(self)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._size or self.image.size

    @property
    def name(self) -> str:
        """The file's name, or the kind of input."""
        return _printable(self.path.name) if self.path else self.kind

    @cached_property
    def sha256(self) -> str:
        """Of the file's bytes, or of the RGB pixels where there is no file."""
        return self.file_sha256 or hashlib.sha256(self.image.tobytes()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {
            "file": _printable(str(self.path)) if self.path else None,
            "kind": self.kind,
            "size": list(self.size),
            "sha256": self.sha256,
            "sha256_of": "file" if self.path else "pixels",
        }


class Boxes(Sequence[Box]):
    """The box on each image that the grid of spatial tokens covers, computed on access.

    It is the part that becomes the model's input, except pixels at its edges that belong to no
    token.

    Args:
        preprocess: the model's.
        sources: the images.
        grid: the spatial tokens that the model makes of its input.

    Raises:
        ImageError: on access, if the preprocessing is no fixed resize and crop.
    """

    def __init__(self, preprocess: Preprocess, sources: Sequence[Source], grid: PatchGrid) -> None:
        self._preprocess = preprocess
        self._sources = sources
        self.grid = grid

    def of(self, sources: Sequence[Source]) -> Boxes:
        """The boxes on other images, for the same grid."""
        return Boxes(self._preprocess, sources, self.grid)

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.of(self._sources[index])
        source = self._sources[index]
        if source.kind == "tensor":
            return self.grid.on(Box(0.0, 0.0, float(source.size[0]), float(source.size[1])))
        return self.grid.on(self._preprocess.box(source.size))


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


def _load_unchanged(path: Path, sha256: str | None) -> Image.Image:
    image = load_image(path)
    if file_sha256(path) != sha256:
        raise ImageError(
            f"{path} changed after it was explained, so its maps do not belong to it; explain it "
            "again."
        )
    return image


def _printable(path: str) -> str:
    """A path as text; bytes that are no UTF-8 become replacement marks."""
    return os.fsencode(path).decode("utf-8", "replace")
