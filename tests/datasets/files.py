"""Small data sets written in the real formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

PALETTE = [value for number in range(256) for value in (number, 255 - number, number // 2)]


def picture(seed: int, width: int = 12, height: int = 8) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def indexed(numbers: np.ndarray, path: Path) -> None:
    image = Image.fromarray(numbers.astype(np.uint8), "P")
    image.putpalette(PALETTE)
    image.save(path)


def write_voc(root: Path) -> Path:
    """VOCdevkit/VOC2012 with two images: a cat and two dogs; a person."""
    base = root / "VOCdevkit" / "VOC2012"
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass", "SegmentationObject"):
        (base / name).mkdir(parents=True)
    (base / "ImageSets/Segmentation/val.txt").write_text("2007_000033\n2007_000042\n")
    for seed, name in enumerate(("2007_000033", "2007_000042")):
        picture(seed).save(base / "JPEGImages" / f"{name}.jpg", quality=100, subsampling=0)
    classes, objects = np.zeros((2, 8, 12), int), np.zeros((2, 8, 12), int)
    classes[0, 1:3, 1:4], objects[0, 1:3, 1:4] = 8, 1
    classes[0, 5:7, 1:4], objects[0, 5:7, 1:4] = 12, 2
    classes[0, 5:7, 8:11], objects[0, 5:7, 8:11] = 12, 3
    classes[0, 4, :], objects[0, 4, :] = 255, 255
    classes[1, 2:6, 2:6], objects[1, 2:6, 2:6] = 15, 1
    for i, name in enumerate(("2007_000033", "2007_000042")):
        indexed(classes[i], base / "SegmentationClass" / f"{name}.png")
        indexed(objects[i], base / "SegmentationObject" / f"{name}.png")
    return root


def write_coco(root: Path) -> Path:
    """Two images; the first has two cats, one a polygon and one run-length coded, and a crowd."""
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    for number in (9, 25):
        picture(number).save(root / "val2017" / f"{number:012d}.jpg")
    square = [1, 1, 5, 1, 5, 4, 1, 4]
    crowd = np.zeros((8, 12), np.uint8)
    crowd[6:8, :] = 1
    flat = crowd.T.flatten()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, len(flat)]).tolist()
    annotations = [
        {"id": 1, "image_id": 9, "category_id": 17, "segmentation": [square], "iscrowd": 0},
        {
            "id": 2,
            "image_id": 9,
            "category_id": 17,
            "segmentation": [[7, 1, 10, 1, 10, 4, 7, 4]],
            "iscrowd": 0,
        },
        {
            "id": 3,
            "image_id": 9,
            "category_id": 1,
            "segmentation": {"counts": counts, "size": [8, 12]},
            "iscrowd": 1,
        },
        {"id": 4, "image_id": 9, "category_id": 1, "segmentation": [[2, 5, 5, 5, 5, 8, 2, 8]]},
    ]
    for annotation in annotations:
        annotation.update(bbox=[0, 0, 1, 1], area=1)
        annotation.setdefault("iscrowd", 0)
    listed = {
        "images": [
            {"id": n, "file_name": f"{n:012d}.jpg", "width": 12, "height": 8} for n in (25, 9)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}],
    }
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(listed))
    return root


def write_imagenet_seg(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """gtsegs_ijcv.mat as MATLAB 7.3 writes it: references to arrays with their axes reversed."""
    import h5py

    rng = np.random.default_rng(0)
    pictures = [
        (
            rng.integers(0, 256, (h, w, 3), dtype=np.uint8),
            rng.integers(0, 2, (h, w), dtype=np.uint8),
        )
        for h, w in ((6, 9), (10, 5))
    ]
    with h5py.File(path, "w") as file:
        value, refs = file.create_group("value"), file.create_group("#refs#")
        images = value.create_dataset("img", (len(pictures), 1), dtype=h5py.ref_dtype)
        masks = value.create_dataset("gt", (len(pictures), 1), dtype=h5py.ref_dtype)
        for i, (pixels, mask) in enumerate(pictures):
            images[i, 0] = refs.create_dataset(f"img{i}", data=pixels.transpose(2, 1, 0)).ref
            inner = refs.create_dataset(f"mask{i}", data=mask.T)
            cell = refs.create_dataset(f"cell{i}", (1, 1), dtype=h5py.ref_dtype)
            cell[0, 0] = inner.ref
            masks[i, 0] = cell.ref
    return pictures
