"""COCO instances."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gradtoken.datasets.pictures import read_picture, require
from gradtoken.datasets.sample import Sample, Samples
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
        self._ids = sorted(self._index.imgs)
        self._names = {c["id"]: str(c["name"]) for c in self._index.loadCats(self._index.cats)}

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        number = self._ids[self._checked(index)]
        about = self._index.imgs[number]
        image = read_picture(self._folder / about["file_name"])
        ignore = np.zeros(image.size[::-1], dtype=bool)
        found: list[tuple[int, np.ndarray[Any, Any]]] = []
        for annotation in self._index.imgToAnns[number]:
            mask = self._index.annToMask(annotation).astype(bool)
            if mask.shape != ignore.shape:
                raise DatasetError(
                    f"a mask of {about['file_name']} is {mask.shape}, its picture {image.size}."
                )
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
        return Sample(Path(about["file_name"]).stem, image, names, stacked, ignore)


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
    except (OSError, ValueError, KeyError, AssertionError, TypeError) as error:
        raise DatasetError(f"{path} is no list of COCO instances: {error!r}.") from None
