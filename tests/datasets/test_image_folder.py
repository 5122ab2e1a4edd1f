"""Pictures in folders, one per class."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradtoken.datasets import ImageFolder
from gradtoken.errors import DatasetError
from tests.datasets.files import picture


def test_names_and_numbers(tmp_path: Path) -> None:
    for folder in ("named/cat", "named/dog", "numbered/7", "numbered/12"):
        (tmp_path / folder).mkdir(parents=True)
        picture(0).save(tmp_path / folder / "b.png")
        picture(1).save(tmp_path / folder / "a.JPEG", "JPEG")
        (tmp_path / folder / "notes.txt").write_text("no picture")
    named = ImageFolder(tmp_path / "named")
    assert [s.id for s in named] == ["cat/a.JPEG", "cat/b.png", "dog/a.JPEG", "dog/b.png"]
    assert named[3].names == ("dog",)
    assert named[3].label is None
    numbered = ImageFolder(tmp_path / "numbered")
    assert [s.label for s in numbered] == [12, 12, 7, 7]
    assert numbered[0].names == ()


def test_imagenets_thousand_folders_are_its_classes(tmp_path: Path) -> None:
    names = [f"n{8 * i + 1440764:08d}" for i in range(1000)]
    for name in names:
        (tmp_path / name).mkdir()
    picture(0).save(tmp_path / names[388] / "ILSVRC2012_val_00000001.JPEG", "JPEG")
    (sample,) = ImageFolder(tmp_path)
    assert sample.label == 388


def test_no_pictures_or_broken_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(DatasetError, match="has no pictures in folders, one per class"):
        ImageFolder(tmp_path)
    with pytest.raises(DatasetError, match="no folder at"):
        ImageFolder(tmp_path / "none")
    (tmp_path / "cat" / "x.jpg").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"x\.jpg cannot be read"):
        ImageFolder(tmp_path)[0]
