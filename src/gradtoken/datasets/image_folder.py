"""Pictures in one folder per class, as ImageNet has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from gradtoken.datasets.pictures import read_picture, require
from gradtoken.datasets.sample import Sample, Samples
from gradtoken.errors import DatasetError
from gradtoken.images import SUFFIXES

_WORDNET = re.compile(r"n\d{8}")
_IMAGENET = 1000


class ImageFolder(Samples):
    """Pictures by class: `ROOT/CLASS/….jpg`.

    A thousand folders named by WordNet ids are ImageNet's classes in their order, and folders named
    by numbers are class ids; of others the name is the class.

    Args:
        root: the folder of folders.

    Raises:
        DatasetError: no such folder, or no pictures in its folders.
    """

    kind: ClassVar[str] = "folder"

    def __init__(self, root: str | Path) -> None:
        root = require(Path(root), "folder")
        try:
            folders = sorted(path for path in root.iterdir() if path.is_dir())
        except OSError as error:
            raise DatasetError(f"the folder {root} cannot be read: {error.strerror}.") from None
        self._root, self._ids = root, _labels([folder.name for folder in folders])
        self._files = [
            file
            for folder in folders
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in SUFFIXES
        ]
        if not self._files:
            raise DatasetError(f"{root} has no pictures in folders, one per class.")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        path = self._files[self._checked(index)]
        inside = path.relative_to(self._root)
        name = inside.parts[0]
        label = self._ids.get(name)
        names = () if label is not None else (name,)
        return Sample(inside.as_posix(), read_picture(path), names, label=label)


def _labels(folders: list[str]) -> dict[str, int]:
    """Class ids of folders, where their names tell."""
    if len(folders) == _IMAGENET and all(_WORDNET.fullmatch(name) for name in folders):
        return {name: index for index, name in enumerate(folders)}
    if all(name.isdecimal() for name in folders):
        return {name: int(name) for name in folders}
    return {}
