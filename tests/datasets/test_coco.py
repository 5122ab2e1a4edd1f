"""Reading a small data set in the format of COCO."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from gradtoken.datasets import COCO
from gradtoken.errors import DatasetError
from tests.datasets.files import write_coco


def test_coco_one_mask_per_category(tmp_path: Path) -> None:
    data_set = COCO(write_coco(tmp_path))
    assert [sample.id for sample in data_set] == ["000000000009", "000000000025"]
    sample = data_set[0]
    assert sample.names == ("person", "cat")
    assert sample.masks[1, 1:4, 1:5].all()
    assert sample.masks[1, 1:4, 7:10].all()
    assert sample.masks[1].sum() == 12 + 9
    assert sample.ignore[6:].all()
    assert sample.ignore.sum() == 24
    assert sample.masks[0].sum() == 3
    assert not (sample.masks & sample.ignore).any()
    assert data_set[1].masks.shape == (0, 8, 12)


def test_coco_one_mask_per_instance_after_pickling(tmp_path: Path) -> None:
    data_set = pickle.loads(pickle.dumps(COCO(write_coco(tmp_path), instances=True)))
    assert data_set[0].names == ("cat", "cat", "person")


def test_coco_names_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no COCO folder at"):
        COCO(tmp_path / "none")
    root = write_coco(tmp_path)
    with pytest.raises(DatasetError, match=r"no list of instances at .*instances_train2017\.json"):
        COCO(root, "train2017")
    (root / "val2017" / "000000000009.jpg").unlink()
    with pytest.raises(DatasetError, match=r"000000000009\.jpg is missing"):
        COCO(root)[0]
    (root / "annotations" / "instances_val2017.json").write_text("{")
    with pytest.raises(DatasetError, match="is no list of COCO instances"):
        COCO(root)
