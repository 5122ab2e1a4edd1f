"""Masks of COCO and VOC are rotated with their images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gradtoken.datasets import COCO, VOC
from gradtoken.errors import DatasetError
from gradtoken.images.load_image import load_image
from tests.datasets.files import indexed

HIGH, WIDE = 16, 32
STORED = np.zeros((HIGH, WIDE), bool)
STORED[0:4, 0:16] = True
"""The object, on the pixels as they are stored: a bar in the upper left corner."""

UPRIGHT = {
    1: STORED,
    2: STORED[:, ::-1],
    3: STORED[::-1, ::-1],
    4: STORED[::-1],
    5: STORED.T,
    6: STORED.T[:, ::-1],
    7: STORED.T[::-1, ::-1],
    8: STORED.T[::-1],
}
"""What EXIF's eight orientations make of it, from their definition: which sides the first row and
the first column of the stored pixels are."""


def save(path: Path, orientation: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.where(STORED[..., None], 255, 0).astype(np.uint8).repeat(3, -1)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, quality=100, subsampling=0, exif=exif)


def coco(root: Path, orientation: int, size: tuple[int, int] | None = None) -> COCO:
    save(root / "val2017" / "1.jpg", orientation)
    height, width = size or (HIGH, WIDE)
    bar = [0, 0, 16, 0, 16, 4, 0, 4]
    crowd = [16, 12, 32, 12, 32, 16, 16, 16]
    listed = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": width, "height": height}],
        "categories": [{"id": 7, "name": "bar"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 7, "segmentation": [shape], "iscrowd": i}
            for i, shape in enumerate((bar, crowd))
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(listed))
    return COCO(root)


def voc(root: Path, orientation: int, numbers: np.ndarray = STORED) -> VOC:
    for name in ("ImageSets/Segmentation", "SegmentationClass"):
        (root / name).mkdir(parents=True)
    (root / "ImageSets/Segmentation/val.txt").write_text("1")
    save(root / "JPEGImages" / "1.jpg", orientation)
    indexed(np.where(numbers, 8, 255), root / "SegmentationClass" / "1.png")
    return VOC(root)


@pytest.mark.parametrize("read", [coco, voc])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_masks_rotate_with_image(tmp_path: Path, orientation: int, read) -> None:
    sample = read(tmp_path, orientation)[0]
    (path,) = tmp_path.rglob("*.jpg")
    assert sample.image == load_image(path)
    white = np.asarray(sample.image)[..., 0] > 127
    assert (white == UPRIGHT[orientation]).all()
    assert (sample.masks[0] == white).all()
    assert sample.ignore.any()
    assert not (sample.ignore & sample.masks[0]).any()
    corner = sample.ignore == UPRIGHT[orientation][::-1, ::-1]
    assert corner.all() if read is coco else (sample.ignore == ~white).all()


def test_upright_masks_stay(tmp_path: Path) -> None:
    """A list whose height and width are those of the upright image was drawn on it."""
    sample = coco(tmp_path / "coco", 6, (WIDE, HIGH))[0]
    assert sample.masks.shape == (1, WIDE, HIGH)
    assert sample.masks[0, :4, :16].all()
    sample = voc(tmp_path / "voc", 6, UPRIGHT[6])[0]
    assert (sample.masks[0] == (np.asarray(sample.image)[..., 0] > 127)).all()


@pytest.mark.parametrize("size", [(WIDE // 2, HIGH // 2), (HIGH, WIDE + 1)])
def test_coco_rejects_image_of_other_size(tmp_path: Path, size: tuple[int, int]) -> None:
    data_set = coco(tmp_path, 1, size)
    with pytest.raises(DatasetError, match=r"its file has 32x16, so its masks do not lie on it"):
        data_set[0]


def test_coco_rejects_list_without_sizes(tmp_path: Path) -> None:
    coco(tmp_path, 1)
    path = tmp_path / "annotations" / "instances_val2017.json"
    listed = json.loads(path.read_text())
    del listed["images"][0]["width"]
    path.write_text(json.dumps(listed))
    with pytest.raises(DatasetError, match="gives no height and width"):
        COCO(tmp_path)[0]
