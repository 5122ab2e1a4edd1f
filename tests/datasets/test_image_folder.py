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


def test_imagenets_folders_are_its_classes_all_or_some(tmp_path: Path) -> None:
    wordnet = {"n01440764": 0, "n02510455": 388, "n15075141": 999}
    for name in wordnet:
        (tmp_path / name).mkdir()
        picture(0).save(tmp_path / name / "ILSVRC2012_val_00000001.JPEG", "JPEG")
    found = list(ImageFolder(tmp_path))
    assert [sample.label for sample in found] == [0, 388, 999]
    assert {sample.classes for sample in found} == {1000}


def test_other_wordnet_ids_are_no_classes_of_imagenet(tmp_path: Path) -> None:
    for name in ("n01440764", "n00000001"):
        (tmp_path / name).mkdir()
        picture(0).save(tmp_path / name / "a.png")
    assert [s.names for s in ImageFolder(tmp_path)] == [("n00000001",), ("n01440764",)]


def test_no_pictures_or_broken_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(DatasetError, match="has no pictures in folders, one per class"):
        ImageFolder(tmp_path)
    with pytest.raises(DatasetError, match="no folder at"):
        ImageFolder(tmp_path / "none")
    (tmp_path / "cat" / "x.jpg").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"x\.jpg cannot be read"):
        ImageFolder(tmp_path)[0]
