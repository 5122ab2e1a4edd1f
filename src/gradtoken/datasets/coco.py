"""COCO instances."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gradtoken.datasets.coco_masks import draw
from gradtoken.datasets.pictures import inside, read_turned, require
from gradtoken.datasets.sample import Sample, Samples
from gradtoken.datasets.turning import orientation_of_masks, turned
from gradtoken.errors import DatasetError


class COCO(Samples):
    """COCO: one mask per category of a picture, or per instance; crowds are to be ignored.

    Args:
        root: holds `annotations/instances_SPLIT.json` and the folder `SPLIT`.
        split: "val2017", "train2017", …
        instances: a mask for each instance in place of each category.

    Raises:
        DatasetError: files that are not there or cannot be read, or pycocotools missing.
    """

    kind: ClassVar[str] = "coco"

    def __init__(
        self, root: str | Path, split: str = "val2017", *, instances: bool = False
    ) -> None:
        root = require(Path(root), "COCO folder")
        listed = require(root / "annotations" / f"instances_{split}.json", "list of instances")
        self._folder = require(root / split, "folder of pictures")
        self._instances = instances
        self._index = _index(listed)
        try:
            self._ids = sorted(self._index.imgs)
            self._names = {c["id"]: str(c["name"]) for c in self._index.cats.values()}
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{listed} is no list of COCO instances: {error!r}.") from None

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return tuple(self._names.values())

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        number = self._ids[self._checked(index)]
        about = self._index.imgs[number]
        path = inside(self._folder, about.get("file_name"))
        image, orientation = read_turned(path)
        size = _listed_size(about, path)
        turn = orientation_of_masks(size, image, orientation, str(path))
        ignore = np.zeros(image.size[::-1], dtype=bool)
        found: list[tuple[int, np.ndarray[Any, Any]]] = []
        for annotation in self._index.imgToAnns[number]:
            try:
                mask = turned(draw(annotation["segmentation"], size), turn)
                self._names[annotation["category_id"]]
            except (KeyError, TypeError, ValueError) as error:
                raise DatasetError(f"an annotation of {path} cannot be read: {error}.") from None
            if annotation.get("iscrowd"):
                ignore |= mask
            elif mask.any():
                found.append((annotation["category_id"], mask))
        if not self._instances:
            merged: dict[int, np.ndarray[Any, Any]] = {}
            for category, mask in found:
                merged[category] = merged[category] | mask if category in merged else mask
            found = sorted(merged.items())
        masks = [mask & ~ignore for _, mask in found]
        stacked = np.stack(masks) if masks else np.zeros((0, *ignore.shape), bool)
        names = tuple(self._names[category] for category, _ in found)
        return Sample(path.stem, image, names, stacked, ignore)


def _listed_size(about: Any, path: Path) -> tuple[int, int]:
    """(height, width) of an image by the list of instances."""
    size = about.get("height"), about.get("width")
    if not all(type(side) is int for side in size):
        raise DatasetError(
            f"the list of instances gives no height and width for {path}, which say on what its "
            "masks were drawn; get the list anew."
        )
    return size


def _index(path: Path) -> Any:
    try:
        from pycocotools.coco import COCO as Index
    except ImportError:
        raise DatasetError(
            "COCO's masks are read by pycocotools, which is not installed; install "
            "gradtoken[bench]."
        ) from None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return Index(str(path))
    except Exception as error:  # pycocotools believes any JSON, and fails on it as it comes
        raise DatasetError(f"{path} is no list of COCO instances: {error!r}.") from None
