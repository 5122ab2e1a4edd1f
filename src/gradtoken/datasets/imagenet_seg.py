"""ImageNet-Segmentation: 4276 images of one object each, in one MATLAB file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gradtoken.datasets.image_files import require
from gradtoken.datasets.sample import Sample, Samples
from gradtoken.errors import DatasetError
from gradtoken.images.load_image import MAX_PIXELS, load_image

_MOST = 1_000_000
"""Most images of a plausible file."""
_MOST_CHUNKS = 50_000


class ImageNetSegmentation(Samples):
    """`gtsegs_ijcv.mat` (Guillaumin, Küttel, Ferrari, IJCV 2014): images and object masks.

    The file is HDF5 (MATLAB 7.3): `value/img` refers to images (3, width, height) and `value/gt` to
    cells that refer to masks (width, height). The file does not name the objects' classes.

    Args:
        path: the file.

    Raises:
        DatasetError: missing, of another format, or h5py missing.
    """

    kind: ClassVar[str] = "imagenet-seg"

    def __init__(self, path: str | Path) -> None:
        self._path = require(Path(path), "MATLAB file")
        self._file: Any = None
        self._count = int(self._open()["value/img"].size)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        file = self._open()
        try:
            pixels = _array(file[_reference(file["value/img"], self.checked_index(index))], 3)
            cell = file[_reference(file["value/gt"], index)]
            mask = _array(file[_reference(cell, 0)], 2)
            image = load_image(pixels.transpose(2, 1, 0))
            masks = (mask.T > 0)[None]
            if masks.shape[1:] != image.size[::-1]:
                raise ValueError(f"a mask of {masks.shape[1:]} for an image of {image.size}")
        except DatasetError:
            raise
        except Exception as error:  # h5py can raise any error on damaged bytes  # noqa: BLE001
            raise DatasetError(f"entry {index} of {self._path} cannot be read: {error}.") from None
        return Sample(f"imagenet-seg-{index:05d}", image, ("object",), masks, unnamed=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def _open(self) -> Any:
        if self._file is None:
            try:
                import h5py
            except ImportError:
                raise DatasetError(
                    "ImageNet-Segmentation is read by h5py, which is not installed; install "
                    "gradtoken[bench]."
                ) from None
            try:
                file = h5py.File(self._path, "r")
                missing = [key for key in ("value/img", "value/gt") if key not in file]
                cells = [] if missing else [file["value/img"], file["value/gt"]]
                valid = all(_is_plain(cell) and cell.size <= _MOST for cell in cells)
                valid = valid and all(cell.file.filename == file.filename for cell in cells)
            except Exception as error:  # h5py can raise any error on damaged bytes  # noqa: BLE001
                raise DatasetError(
                    f"{self._path} is no HDF5 file ({error}); use gtsegs_ijcv.mat as published."
                ) from None
            if missing:
                raise DatasetError(f"{self._path} has no {missing[0]!r}; use gtsegs_ijcv.mat.")
            if not valid:
                raise DatasetError(
                    f"{self._path} keeps no plain lists of images; use gtsegs_ijcv.mat as "
                    "published."
                )
            self._file = file
        return self._file


def _is_plain(data: Any) -> bool:
    """Whether something in the file is a data set whose numbers are in the file itself, in so few
    chunks that their index fits into memory.
    """
    stored = all(hasattr(data, name) for name in ("size", "external", "is_virtual"))
    if not stored or data.external is not None or data.is_virtual:
        return False
    pieces = zip(data.shape, data.chunks or data.shape, strict=True)
    return math.prod(-(-side // max(chunk, 1)) for side, chunk in pieces) <= _MOST_CHUNKS


def _array(data: Any, axes: int) -> np.ndarray[Any, Any]:
    """The numbers of an image or mask, checked before they take memory."""
    if not _is_plain(data) or len(data.shape) != axes or data.dtype.kind not in "uibf":
        raise ValueError("it is no plain image or mask ")
    if data.size > 3 * MAX_PIXELS:
        raise ValueError(f"it has {data.size:,} numbers, above the limit of {3 * MAX_PIXELS:,}")
    return np.asarray(data)


def _reference(cells: Any, index: int) -> Any:
    """The reference in a cell, for cells of any shape."""
    if not _is_plain(cells) or cells.size > _MOST:
        raise ValueError("it is no plain list of references")
    return np.asarray(cells).reshape(-1)[index]
