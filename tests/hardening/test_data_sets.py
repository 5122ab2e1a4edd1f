"""Data sets whose files lie about each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gradtoken.datasets.coco import COCO
from gradtoken.datasets.coco_masks import draw
from gradtoken.datasets.imagenet_seg import ImageNetSegmentation
from gradtoken.datasets.voc import VOC
from gradtoken.errors import DatasetError
from tests.datasets.files import write_coco, write_imagenet_seg, write_voc


def test_draw_run_lengths_equals_pycocotools() -> None:
    from pycocotools import mask

    rng = np.random.default_rng(0)
    for height, width in ((8, 12), (1, 1), (300, 200)):
        for share in (0.0, 0.02, 0.5, 1.0):
            wanted = rng.random((height, width)) < share
            packed = mask.encode(np.asfortranarray(wanted.astype(np.uint8)))
            text = {"size": [height, width], "counts": packed["counts"].decode()}
            assert np.array_equal(draw(text, (height, width)), wanted)


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([], "there is no polygon"),
        ([[1, 1, 5, 1]], "three or more points"),
        ([[1, 1, 5, 1, 5, 1e9]], "outside of the image"),
        ([[1, 1, 5, 1, 5, float("nan")]], "outside of the image"),
        ([[1, 1, 5, 1, 5, "5"]], "outside of the image"),
        ({"size": [8, 12], "counts": [96, 1]}, "cover 97 pixels of 96"),
        ({"size": [8, 12], "counts": [10]}, "cover 10 pixels of 96"),
        ({"size": [8, 12], "counts": [-4, 100]}, "no list of whole numbers"),
        ({"size": [1 << 20, 1 << 20], "counts": [1 << 40]}, "not for the size"),
        ({"size": [8, 12], "counts": "PPYo"}, "end within a number"),
        ({"size": [8, 12], "counts": "\x00"}, "letters that they do not have"),
        ({"size": [8, 12], "counts": "o" * 100}, "letters that they do not have"),
        (None, "not for the size"),
    ],
)
def test_draw_rejects_masks_of_other_size(segmentation: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw(segmentation, (8, 12))


def _listed(root: Path) -> tuple[Path, Any]:
    path = root / "annotations" / "instances_val2017.json"
    return path, json.loads(path.read_text())


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", None, 3])
def test_coco_rejects_images_outside_folder(tmp_path: Path, name: object) -> None:
    path, listed = _listed(write_coco(tmp_path))
    listed["images"][1]["file_name"] = name
    path.write_text(json.dumps(listed))
    with pytest.raises(DatasetError, match="no file name within"):
        COCO(tmp_path)[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda listed: listed["annotations"][0].pop("segmentation"),
        lambda listed: listed["annotations"][0].update(category_id=99),
        lambda listed: listed["annotations"][0].update(segmentation=3),
    ],
)
def test_coco_rejects_damaged_annotations(tmp_path: Path, change: Any) -> None:
    path, listed = _listed(write_coco(tmp_path))
    change(listed)
    path.write_text(json.dumps(listed))
    with pytest.raises(DatasetError, match="cannot be read"):
        COCO(tmp_path)[0]


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"images": [3]}', '{"categories": [{}]}'])
def test_coco_rejects_damaged_lists(tmp_path: Path, text: str) -> None:
    path, _ = _listed(write_coco(tmp_path))
    path.write_text(text)
    with pytest.raises(DatasetError):
        COCO(tmp_path)[0]


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/../../../x"])
def test_voc_rejects_images_outside_folder(tmp_path: Path, name: str) -> None:
    root = write_voc(tmp_path)
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text(name)
    with pytest.raises(DatasetError, match="no file name within"):
        VOC(root)[0]


def test_voc_rejects_list_that_is_no_text(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="is no list of images"):
        VOC(root)


def _replaced(path: Path, make: Any) -> None:
    """Another data set in the place of the first picture."""
    with h5py.File(path, "r+") as file:
        file["value/img"][0, 0] = make(file["#refs#"]).ref


@pytest.mark.parametrize(
    "make",
    [
        lambda refs: refs.create_dataset("x", (3, 1 << 34, 1 << 20), dtype="u1", chunks=(1, 1, 1)),
        lambda refs: refs.create_dataset("x", (3, 1 << 20, 1), dtype="u1", chunks=(1, 1, 1)),
        lambda refs: refs.create_dataset("x", (3, 9, 6), "u1", external=[("/etc/passwd", 0, 162)]),
        lambda refs: refs.create_dataset("x", (3, 9, 6), dtype="S4"),
        lambda refs: refs.create_group("x"),
    ],
    ids=["huge", "crumbs", "another file", "text", "group"],
)
def test_imagenet_seg_rejects_data_that_is_no_image(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "a.mat"
    write_imagenet_seg(path)
    _replaced(path, make)
    with pytest.raises(DatasetError, match=r"no plain image or mask|above the limit"):
        ImageNetSegmentation(path)[0]


def test_imagenet_seg_rejects_linked_or_endless_lists(tmp_path: Path) -> None:
    path, other = tmp_path / "a.mat", tmp_path / "b.mat"
    for one in (path, other):
        write_imagenet_seg(one)
    with h5py.File(path, "r+") as file:
        del file["value/img"]
        file["value/img"] = h5py.ExternalLink(str(other), "/value/img")
    with pytest.raises(DatasetError, match="keeps no plain lists of images"):
        ImageNetSegmentation(path)
    with h5py.File(path, "r+") as file:
        del file["value/img"]
        file["value"].create_dataset("img", (1 << 40, 1), dtype=h5py.ref_dtype, chunks=(1, 1))
    with pytest.raises(DatasetError, match="keeps no plain lists of images"):
        ImageNetSegmentation(path)
