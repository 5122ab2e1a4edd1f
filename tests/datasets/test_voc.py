"""Reading a small data set in the format of Pascal VOC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradtoken.datasets import VOC
from gradtoken.errors import DatasetError
from tests.datasets.files import picture, write_voc


def test_voc_one_mask_per_class(tmp_path: Path) -> None:
    data_set = VOC(write_voc(tmp_path))
    assert len(data_set) == 2
    sample = data_set[0]
    assert sample.id == "2007_000033"
    assert sample.names == ("cat", "dog")
    assert sample.masks.shape == (2, 8, 12)
    assert sample.masks.sum(axis=(1, 2)).tolist() == [6, 12]
    assert sample.masks[0, 1:3, 1:4].all()
    assert sample.ignore[4].all()
    assert sample.ignore.sum() == 12
    assert np.abs(np.asarray(sample.image).astype(int) - np.asarray(picture(0))).mean() < 5
    assert [s.names for s in data_set] == [("cat", "dog"), ("person",)]


def test_voc_one_mask_per_instance(tmp_path: Path) -> None:
    sample = VOC(write_voc(tmp_path) / "VOCdevkit" / "VOC2012", instances=True)[0]
    assert sample.names == ("cat", "dog", "dog")
    assert sample.masks[2, 5:7, 8:11].all()
    assert sample.masks.sum() == 18


def test_voc_names_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no VOC2012"):
        VOC(tmp_path)
    root = write_voc(tmp_path)
    with pytest.raises(DatasetError, match=r"no list of images at .*train\.txt"):
        VOC(root, "train")
    base = root / "VOCdevkit" / "VOC2012"
    (base / "JPEGImages" / "2007_000042.jpg").unlink()
    (base / "SegmentationClass" / "2007_000033.png").write_bytes(b"no picture")
    data_set = VOC(root)
    with pytest.raises(DatasetError, match=r"2007_000042\.jpg is missing"):
        data_set[1]
    with pytest.raises(DatasetError, match=r"2007_000033\.png cannot be read"):
        data_set[0]
    picture(0).save(base / "SegmentationClass" / "2007_000033.png")
    with pytest.raises(DatasetError, match=r"no map of class numbers \(mode RGB\)"):
        data_set[0]
    with pytest.raises(IndexError):
        data_set[2]
