"""Maps return to where on the picture the model looked."""

from __future__ import annotations

import pytest
import timm.data
import torch
from PIL import Image
from torchvision import transforms

from gradtoken.errors import ImageError, ModelError
from gradtoken.images.crop_box import Box, lay_out, probe
from gradtoken.images.preprocess import Preprocess, check_tensor
from gradtoken.models.timm.preprocess import build_preprocess

SIZES = [(300, 200), (200, 300), (224, 224), (97, 411), (33, 30), (2000, 1500)]


def config(**changes: object) -> dict:
    return {
        "input_size": (3, 64, 64),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "crop_pct": 0.9,
        **changes,
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_known_geometry_is_what_the_transform_does(size: tuple[int, int], crop_pct: float) -> None:
    preprocess = build_preprocess(config(crop_pct=crop_pct))
    assert preprocess.geometry is not None
    expected = probe(preprocess.transform, size)
    tolerance = max(0.005 * max(size), 0.5)
    for known, found in zip(preprocess.box(size), expected, strict=True):
        assert abs(known - found) < tolerance


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (640, 480)])
def test_squash_and_padding_are_found_by_probing(size: tuple[int, int]) -> None:
    width, height = size
    squash = build_preprocess(config(crop_mode="squash", crop_pct=1.0)).box(size)
    for found, expected in zip(squash, (0, 0, width, height), strict=True):
        assert abs(found - expected) < 0.02 * max(size)
    padded = build_preprocess(config(crop_mode="border", crop_pct=1.0)).box(size)
    side, longest = padded.right - padded.left, max(size)
    assert abs(side - longest) < 0.04 * longest
    assert abs((padded.top + padded.bottom) / 2 - height / 2) < 0.03 * longest


def test_probing_finds_an_off_centre_crop() -> None:
    transform = transforms.Compose(
        [
            transforms.Lambda(lambda image: image.crop((40, 10, 140, 110))),
            transforms.Resize((50, 50)),
            transforms.ToTensor(),
            transforms.Normalize((0.4,) * 3, (0.2,) * 3),
        ]
    )
    for found, expected in zip(probe(transform, (300, 200)), (40, 10, 140, 110), strict=True):
        assert abs(found - expected) < 2


def test_probing_a_very_wide_picture() -> None:
    preprocess = build_preprocess(config())
    box = probe(preprocess.transform, (8000, 20))
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
def test_what_is_not_a_fixed_resize_and_crop_is_refused(step: object) -> None:
    transform = transforms.Compose([step, transforms.Resize((64, 64)), transforms.ToTensor()])
    for size in ((300, 200), (200, 300)):
        with pytest.raises(ImageError, match="not a fixed resize and crop"):
            probe(transform, size)


@pytest.mark.parametrize("box", [(0, 0, 100, 100), (3940, 3940, 4000, 4000), (0, 2000, 90, 2090)])
def test_probing_finds_a_small_part_of_a_large_picture(box: tuple[int, int, int, int]) -> None:
    transform = transforms.Compose(
        [transforms.Lambda(lambda image: image.crop(box)), transforms.ToTensor()]
    )
    for found, expected in zip(probe(transform, (4000, 4000)), box, strict=True):
        assert abs(found - expected) < 1.5


def test_lay_out_puts_each_token_where_it_was() -> None:
    tokens = torch.arange(4.0).view(1, 2, 2)
    box = Box(20, 0, 60, 40)
    out = lay_out(tokens, box, (80, 40), mode="nearest")
    assert out.shape == (1, 40, 80)
    assert torch.equal(out[0, :20, 20:40], torch.zeros(20, 20))
    assert torch.equal(out[0, :20, 40:60], torch.ones(20, 20))
    assert torch.equal(out[0, 20:, 20:40], torch.full((20, 20), 2.0))
    assert torch.equal(out[0, 20:, 40:60], torch.full((20, 20), 3.0))
    assert out[0, :, :20].abs().max() == 0
    assert out[0, :, 60:].abs().max() == 0


def test_lay_out_past_the_borders_of_a_padded_picture() -> None:
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    out = lay_out(tokens, Box(0, -20, 80, 60), (80, 40), mode="nearest")
    assert torch.equal(out[0, :20, :40], torch.ones(20, 40))
    assert torch.equal(out[0, 20:, 40:], torch.full((20, 40), 4.0))


def test_picture_undoes_the_normalisation(picture: Image.Image) -> None:
    preprocess = build_preprocess(config())
    tensor = preprocess(picture)
    shown = transforms.functional.to_tensor(preprocess.picture(tensor))
    assert (shown - (tensor * 0.25 + 0.5)).abs().max() < 0.003


def test_a_preprocess_of_the_wrong_kind_is_refused(picture: Image.Image) -> None:
    for transform, words in [
        (lambda image: image, "it returned Image"),
        (lambda image: torch.zeros(1, 8, 8), r"it returned \(1, 8, 8\)"),
    ]:
        with pytest.raises(ModelError, match=words):
            Preprocess(transform)(picture)


def test_strips_too_elongated_to_resize_are_refused() -> None:
    with pytest.raises(ImageError, match="too elongated"):
        build_preprocess(config())(Image.new("RGB", (5001, 5)))


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(2, 1, 8, 8), "is not a preprocessed batch"),
        (torch.zeros(8, 8), "is not a preprocessed batch"),
        (torch.zeros(0, 3, 8, 8), "batch is empty"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "is not preprocessed"),
        (torch.full((1, 3, 8, 8), torch.nan), "NaN or infinite"),
        (torch.full((3, 8, 8), torch.inf), "NaN or infinite"),
    ],
)
def test_bad_tensors_are_refused(tensor: torch.Tensor, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        check_tensor(tensor)


def test_timm_preprocessing_is_timms(picture: Image.Image) -> None:
    settings = config()
    ours = build_preprocess(settings)(picture)
    assert torch.equal(ours, timm.data.create_transform(**settings, is_training=False)(picture))
