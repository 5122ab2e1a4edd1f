"""COCO instances."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gradtoken.datasets.coco_masks import draw
from gradtoken.datasets.image_files import inside, read_oriented, require
from gradtoken.datasets.rotation import orientation_of_masks, upright_mask
from gradtoken.datasets.sample import Sample, Samples
from gradtoken.errors import DatasetError


class COCO(Samples):
    """COCO: one mask per category of an image, or per instance; crowds are ignored.

    Args:
        root: holds `annotations/instances_SPLIT.json` and the folder `SPLIT`; with `annotations`
            it is the folder of images itself.
        split: "val2017", "train2017", …
        instances: a mask per instance in place of each category.
        annotations: the list of instances, wherever it is; None is that of `root` and `split`.

    Raises:
        DatasetError: files that are missing or cannot be read, or pycocotools missing.
    """

    kind: ClassVar[str] = "coco"

    def __init__(
        self,
        root: str | Path,
        split: str = "val2017",
        *,
        instances: bool = False,
        annotations: str | Path | None = None,
    ) -> None:
        if annotations is None:
            root = require(Path(root), "COCO folder")
            listed = require(root / "annotations" / f"instances_{split}.json", "list of instances")
            self._folder = require(root / split, "folder of images")
        else:
            self._folder = require(Path(root), "folder of images")
            listed = require(Path(annotations), "list of instances")
        self._instances = instances
        self._index = _index(listed)
        try:
            self._ids = sorted(self._index.imgs)
            self._names = {c["id"]: str(c["name"]) for c in self._index.cats.values()}
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{listed} is no list of COCO instances: {error!r}.") from None
        if not self._ids:
            raise DatasetError(f"{listed} lists no image; give a list of COCO instances.")

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return tuple(self._names.values())

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        number = self._ids[self.checked_index(index)]
        entry = self._index.imgs[number]
        path = inside(self._folder, entry.get("file_name"))
        image, orientation = read_oriented(path)
        size = _listed_size(entry, path)
        rotation = orientation_of_masks(size, image, orientation, str(path))
        ignore = np.zeros(image.size[::-1], dtype=bool)
        objects: list[tuple[int, np.ndarray[Any, Any]]] = []
        for annotation in self._index.imgToAnns[number]:
            try:
                mask = upright_mask(draw(annotation["segmentation"], size), rotation)
                self._names[annotation["category_id"]]
            except (KeyError, TypeError, ValueError) as error:
                raise DatasetError(f"an annotation of {path} cannot be read: {error}.") from None
            if annotation.get("iscrowd"):
                ignore |= mask
            elif mask.any():
                objects.append((annotation["category_id"], mask))
        if not self._instances:
            merged: dict[int, np.ndarray[Any, Any]] = {}
            for category, mask in objects:
                merged[category] = merged[category] | mask if category in merged else mask
            objects = sorted(merged.items())
        masks = [mask & ~ignore for _, mask in objects]
        stacked = np.stack(masks) if masks else np.zeros((0, *ignore.shape), bool)
        names = tuple(self._names[category] for category, _ in objects)
        name = path.relative_to(self._folder).with_suffix("").as_posix()
        return Sample(name, image, names, stacked, ignore)


def open_coco(text: str) -> COCO:
    """COCO by the part of `coco:…` behind the colon.

    Args:
        text: the folder of the data set, or the folder of images and the list of instances with a
            comma between. Either may have commas and spaces in its name.

    Raises:
        DatasetError: files that are missing or cannot be read, or a text that can be split at
            several commas.
    """
    if os.path.exists(text) or "," not in text:
        return COCO(text)
    places = [i for i, letter in enumerate(text) if letter == ","]
    splits = [(_existing(text[:i]), _existing(text[i + 1 :])) for i in places]
    found = {(images, listed) for images, listed in splits if images and listed}
    if len(found) > 1:
        raise DatasetError(
            f"coco:{text} can be split at several commas; rename the folder or the list."
        )
    if found:
        ((images, listed),) = found
        return COCO(images, annotations=listed)
    images, listed = (part.strip() for part in text.rsplit(",", 1))
    missing = [
        f"no {what} at {part!r}"
        for what, part in (("folder of images", images), ("list of instances", listed))
        if not os.path.exists(part)
    ]
    raise DatasetError(
        f"coco:{text} is neither a folder nor IMAGES,JSON, as there is {' and '.join(missing)}; "
        "give the folder of images and the list of instances with a comma between."
    )


def _existing(part: str) -> str | None:
    """A path as it is written, or without the spaces around it; None if there is neither."""
    return next((path for path in (part, part.strip()) if path and os.path.exists(path)), None)


def _listed_size(entry: Any, path: Path) -> tuple[int, int]:
    """(height, width) of an image by its entry in the list of instances."""
    size = entry.get("height"), entry.get("width")
    if not all(type(side) is int for side in size):
        raise DatasetError(
            f"the list of instances gives no height and width for {path}, which say on what its "
            "masks were drawn; get the list anew."
        )
    return size


def _index(path: Path) -> Any:
    try:
        from pycocotools.coco import COCO as Index  # noqa: N811
    except ImportError:
        raise DatasetError(
            "COCO's masks are read by pycocotools, which is not installed; install "
            "gradtoken[bench]."
        ) from None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return Index(str(path))
    except Exception as error:  # pycocotools does not check the JSON, so any error can occur  # noqa: BLE001
        raise DatasetError(f"{path} is no list of COCO instances: {error!r}.") from None
