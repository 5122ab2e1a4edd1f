"""ImageNet-Segmentation: 4276 pictures of one object each, in one MATLAB file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from gradtoken.datasets.pictures import require
from gradtoken.datasets.sample import Sample, Samples
from gradtoken.errors import DatasetError


class ImageNetSegmentation(Samples):
    """`gtsegs_ijcv.mat` (Guillaumin, Küttel, Ferrari, IJCV 2014): pictures and object masks.

    The file is HDF5 (MATLAB 7.3): `value/img` refers to pictures (3, width, height) and `value/gt`
    to cells that refer to masks (width, height). The object's class is not told.

    Args:
        path: the file.

    Raises:
        DatasetError: missing, of another format, or h5py missing.
    """

    kind: ClassVar[str] = "imagenet-seg"

    def __init__(self, path: str | Path) -> None:
        self._path = require(Path(path), "MATLAB file")
        self._file: Any = None
        self._count = int(np.prod(self._open()["value/img"].shape))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        file = self._open()
        try:
            pixels = np.asarray(file[_refers(file["value/img"], self._checked(index))])
            cell = file[_refers(file["value/gt"], index)]
            mask = np.asarray(file[_refers(cell, 0)])
            image = Image.fromarray(pixels.transpose(2, 1, 0).astype(np.uint8), "RGB")
            masks = (mask.T > 0)[None]
            if masks.shape[1:] != image.size[::-1]:
                raise ValueError(f"a mask of {masks.shape[1:]} for a picture of {image.size}")
        except (KeyError, ValueError, TypeError, AttributeError) as error:
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
            except OSError as error:
                raise DatasetError(
                    f"{self._path} is no HDF5 file ({error}); use gtsegs_ijcv.mat as published."
                ) from None
            if missing:
                raise DatasetError(f"{self._path} has no {missing[0]!r}; use gtsegs_ijcv.mat.")
            self._file = file
        return self._file


def _refers(cells: Any, index: int) -> Any:
    """The reference in one cell, whatever the cells' shape."""
    return np.asarray(cells).reshape(-1)[index]
