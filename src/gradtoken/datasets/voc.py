"""Pascal VOC 2012 segmentation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from gradtoken.datasets.image_files import inside, read_indices, read_oriented, require
from gradtoken.datasets.rotation import orientation_of_masks, upright_mask
from gradtoken.datasets.sample import Sample, Samples
from gradtoken.errors import DatasetError

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""Class numbers 1 to 20, in order."""
_VOID = 255


class VOC(Samples):
    """Pascal VOC 2012: one mask per class of an image, or per instance.

    Args:
        root: `VOCdevkit`, `VOC2012` or a folder that holds one of them.
        split: "val", "train" or "trainval", as in `ImageSets/Segmentation`.
        instances: a mask per instance (`SegmentationObject`) in place of each class.

    Raises:
        DatasetError: files that are missing.
    """

    kind: ClassVar[str] = "voc"

    def __init__(self, root: str | Path, split: str = "val", *, instances: bool = False) -> None:
        self._root = _find(Path(root))
        listed = require(
            self._root / "ImageSets" / "Segmentation" / f"{split}.txt", "list of images"
        )
        try:
            self._ids = listed.read_text("utf-8").split()
        except (OSError, ValueError) as error:
            raise DatasetError(f"{listed} is no list of images: {error}.") from None
        self._instances = instances
        if not self._ids:
            raise DatasetError(f"{listed} lists no image.")

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return CLASSES

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        name = self._ids[self.checked_index(index)]
        image, orientation = read_oriented(inside(self._root / "JPEGImages", f"{name}.jpg"))
        classes = read_indices(inside(self._root / "SegmentationClass", f"{name}.png"))
        size = (classes.shape[0], classes.shape[1])
        rotation = orientation_of_masks(size, image, orientation, name)
        void = classes == _VOID
        numbers = classes
        if self._instances:
            numbers = read_indices(inside(self._root / "SegmentationObject", f"{name}.png"))
            if numbers.shape != classes.shape:
                raise DatasetError(f"the masks of {name} are {numbers.shape} and {classes.shape}.")
        masks, names = [], []
        for number in np.unique(numbers):
            if number in (0, _VOID):
                continue
            mask = (numbers == number) & ~void
            within = classes[mask]
            within = within[within > 0]
            if len(within):
                masks.append(upright_mask(mask, rotation))
                names.append(_name(int(np.bincount(within).argmax()), name))
        stacked = np.stack(masks) if masks else np.zeros((0, image.height, image.width), bool)
        return Sample(name, image, tuple(names), stacked, upright_mask(void, rotation))


def _name(number: int, image: str) -> str:
    if not 1 <= number <= len(CLASSES):
        raise DatasetError(f"the mask of {image} has class number {number}, VOC has 1 to 20.")
    return CLASSES[number - 1]


def _find(root: Path) -> Path:
    for path in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if os.path.isdir(path / "ImageSets"):
            return path
    raise DatasetError(
        f"{root} holds no VOC2012 (a folder with ImageSets, JPEGImages and SegmentationClass); "
        "give the unpacked VOCdevkit."
    )
