"""Measuring the box of an image that a preprocessing keeps."""

from __future__ import annotations

import pytest
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2

from gradtoken.errors import ImageError
from gradtoken.images.crop_box import find_crop_box
from gradtoken.images.preprocess import Preprocess
from gradtoken.models.timm.preprocess import build_preprocess
from tests.images.data_config import config
from tests.images.multichannel import SIZE

SIZES = [(300, 200), (200, 300), (224, 224), (97, 411), (33, 30), (2000, 1500)]


def test_find_crop_box_for_four_channels() -> None:
    crop = v2.Compose([v2.Lambda(lambda x: x[:, 10:50, 20:60]), v2.Resize(SIZE)])
    box = Preprocess(crop, channels=4).box((90, 60))
    for actual, expected in zip(box, (20, 10, 60, 50), strict=True):
        assert abs(actual - expected) < 1.5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_find_crop_box_equals_known_geometry(size: tuple[int, int], crop_pct: float) -> None:
    preprocess = build_preprocess(config(crop_pct=crop_pct))
    assert preprocess.geometry is not None
    expected = find_crop_box(preprocess.transform, size)
    tolerance = max(0.005 * max(size), 0.5)
    for known, actual in zip(preprocess.box(size), expected, strict=True):
        assert abs(known - actual) < tolerance


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (640, 480)])
def test_find_crop_box_of_squash_and_padding(size: tuple[int, int]) -> None:
    width, height = size
    squash = build_preprocess(config(crop_mode="squash", crop_pct=1.0)).box(size)
    for actual, expected in zip(squash, (0, 0, width, height), strict=True):
        assert abs(actual - expected) < 0.02 * max(size)
    padded = build_preprocess(config(crop_mode="border", crop_pct=1.0)).box(size)
    side, longest = padded.right - padded.left, max(size)
    assert abs(side - longest) < 0.04 * longest
    assert abs((padded.top + padded.bottom) / 2 - height / 2) < 0.03 * longest


def test_find_crop_box_off_centre() -> None:
    transform = transforms.Compose(
        [
            transforms.Lambda(lambda image: image.crop((40, 10, 140, 110))),
            transforms.Resize((50, 50)),
            transforms.ToTensor(),
            transforms.Normalize((0.4,) * 3, (0.2,) * 3),
        ]
    )
    for actual, expected in zip(
        find_crop_box(transform, (300, 200)), (40, 10, 140, 110), strict=True
    ):
        assert abs(actual - expected) < 2


def test_find_crop_box_of_very_wide_image() -> None:
    preprocess = build_preprocess(config())
    box = find_crop_box(preprocess.transform, (8000, 20))
    assert abs((box.left + box.right) / 2 - 4000) < 3
    assert 10 < box.right - box.left < 30


@pytest.mark.parametrize(
    "step",
    [
        transforms.RandomHorizontalFlip(1.0),
        transforms.RandomVerticalFlip(1.0),
        transforms.RandomResizedCrop(64),
        transforms.RandomCrop(64),
        transforms.RandomRotation((15, 15)),
        transforms.RandomRotation((90, 90)),
        transforms.Lambda(lambda image: Image.new("RGB", (20, 20))),
    ],
    ids=lambda step: type(step).__name__,
)
def test_find_crop_box_rejects_other_transforms(step: object) -> None:
    transform = transforms.Compose([step, transforms.Resize((64, 64)), transforms.ToTensor()])
    for size in ((300, 200), (200, 300)):
        with pytest.raises(ImageError, match="not a fixed resize and crop"):
            find_crop_box(transform, size)


@pytest.mark.parametrize("box", [(0, 0, 100, 100), (3940, 3940, 4000, 4000), (0, 2000, 90, 2090)])
def test_find_crop_box_of_small_part(box: tuple[int, int, int, int]) -> None:
    transform = transforms.Compose(
        [transforms.Lambda(lambda image: image.crop(box)), transforms.ToTensor()]
    )
    for actual, expected in zip(find_crop_box(transform, (4000, 4000)), box, strict=True):
        assert abs(actual - expected) < 1.5
