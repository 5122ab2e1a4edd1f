"""Images in folders, one per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gradtoken.datasets import ImageFolder
from gradtoken.errors import DatasetError
from gradtoken.images.load_image import load_image
from tests.datasets.files import picture


def test_image_folder_names_and_numbers(tmp_path: Path) -> None:
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


def test_image_folder_wordnet_ids_are_imagenet_classes(tmp_path: Path) -> None:
    wordnet = {"n01440764": 0, "n02510455": 388, "n15075141": 999}
    for name in wordnet:
        (tmp_path / name).mkdir()
        picture(0).save(tmp_path / name / "ILSVRC2012_val_00000001.JPEG", "JPEG")
    samples = list(ImageFolder(tmp_path))
    assert [sample.label for sample in samples] == [0, 388, 999]
    assert {sample.classes for sample in samples} == {1000}


def test_image_folder_other_wordnet_ids_are_names(tmp_path: Path) -> None:
    for name in ("n01440764", "n00000001"):
        (tmp_path / name).mkdir()
        picture(0).save(tmp_path / name / "a.png")
    assert [s.names for s in ImageFolder(tmp_path)] == [("n00000001",), ("n01440764",)]


def test_image_folder_rejects_missing_and_broken_images(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(DatasetError, match="has no images in folders, one per class"):
        ImageFolder(tmp_path)
    with pytest.raises(DatasetError, match="no folder at"):
        ImageFolder(tmp_path / "none")
    (tmp_path / "cat" / "x.jpg").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"x\.jpg cannot be read"):
        ImageFolder(tmp_path)[0]


def save_rotated(path: Path) -> None:
    """An image of 32x16 stored pixels with the EXIF orientation 6."""
    exif = Image.Exif()
    exif[274] = 6
    picture(2, 32, 16).save(path, quality=100, subsampling=0, exif=exif)


def test_image_folder_reads_as_explain(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    (tmp_path / "cat").mkdir()
    Image.fromarray(ramp).save(tmp_path / "cat" / "a.png")
    save_rotated(tmp_path / "cat" / "b.jpg")
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "cat" / "c.png")
    images = [sample.image for sample in ImageFolder(tmp_path)]
    grey = np.asarray(images[0])[..., 0]
    assert (grey == np.arange(256).reshape(16, 16)).all()
    assert images[1].size == (16, 32)
    assert images[2].getpixel((0, 0)) == (255, 255, 255)
    for image, path in zip(images, sorted((tmp_path / "cat").iterdir()), strict=True):
        assert image == load_image(path)
