"""Images in one folder per class, as in ImageNet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from gradtoken.datasets.image_files import read_image, require
from gradtoken.datasets.sample import Sample, Samples
from gradtoken.errors import DatasetError
from gradtoken.images.load_image import SUFFIXES

_WORDNET = re.compile(r"n\d{8}")


class ImageFolder(Samples):
    """Images by class: `ROOT/CLASS/….jpg`.

    Folders named by WordNet ids of ImageNet-1k, all or some, are these classes; folders named by
    numbers are class ids; the names of other folders are class names.

    Args:
        root: the folder of folders.

    Raises:
        DatasetError: no such folder, or no images in its folders.
    """

    kind: ClassVar[str] = "folder"

    def __init__(self, root: str | Path) -> None:
        root = require(Path(root), "folder")
        try:
            folders = sorted(path for path in root.iterdir() if path.is_dir())
        except OSError as error:
            raise DatasetError(f"the folder {root} cannot be read: {error.strerror}.") from None
        self._root = root
        self._ids, self._classes = _labels([folder.name for folder in folders])
        self._files = [
            file
            for folder in folders
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in SUFFIXES
        ]
        if not self._files:
            raise DatasetError(f"{root} has no images in folders, one per class.")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        path = self._files[self.checked_index(index)]
        relative = path.relative_to(self._root)
        name = relative.parts[0]
        label = self._ids.get(name)
        names = () if label is not None else (name,)
        image = read_image(path)
        return Sample(relative.as_posix(), image, names, label=label, classes=self._classes)


def _labels(folders: list[str]) -> tuple[dict[str, int], int | None]:
    """Class ids by folder, where the names have any, and the number of classes, where known."""
    if all(_WORDNET.fullmatch(name) for name in folders):
        from timm.data import ImageNetInfo

        names = ImageNetInfo("imagenet-1k").label_names()
        ids = {name: index for index, name in enumerate(names)}
        if ids.keys() >= set(folders):
            return {name: ids[name] for name in folders}, len(ids)
    if all(name.isdecimal() for name in folders):
        return {name: int(name) for name in folders}, None
    return {}, None
