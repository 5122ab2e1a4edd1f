"""Objects that no map could find are left out of every metric that uses masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.bench.cases import cases
from gradtoken.bench.left_out import LeftOut
from gradtoken.bench.run import run
from gradtoken.bench.scores import GROUPS, Maps
from gradtoken.bench.store import Store
from gradtoken.datasets import Sample
from gradtoken.errors import DatasetError
from gradtoken.images.preprocess import Preprocess
from gradtoken.models import Model
from tests.bench.toys import Fixed
from tests.conftest import tiny_vit

WIDE, HIGH = 128, 64


def crop(image: Image.Image) -> torch.Tensor:
    """The middle square, columns 32 to 95."""
    pixels = np.asarray(image.crop((32, 0, 96, 64)), dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.fixture(scope="module")
def model() -> Model:
    return gradtoken.wrap(tiny_vit(), preprocess=Preprocess(crop))


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((HIGH, WIDE), bool)
    mask[top:bottom, left:right] = True
    return mask


VISIBLE = box(32, 0, 48, 16)
OUTSIDE = box(0, 0, 32, 64)
CUT = box(20, 32, 40, 64)
IGNORED = box(80, 48, 96, 64)


def made(*masks: np.ndarray, ignore: np.ndarray | None = None, name: str = "a") -> Sample:
    pixels = np.random.default_rng(0).integers(0, 256, (HIGH, WIDE, 3), dtype=np.uint8)
    names = tuple(f"class {i}" for i in range(len(masks)))
    return Sample(name, Image.fromarray(pixels), names, np.stack(masks), ignore)


def test_what_is_left_and_why(model: Model) -> None:
    sample = made(VISIBLE, OUTSIDE, CUT, IGNORED, ignore=box(76, 40, 128, 64))
    ((_, case),) = cases(model, [sample], whole=False)
    assert case.names == ("class 0", "class 2")
    assert case.classes == (0, 2)
    assert case.skipped == (
        ("class 1", "it lies outside of the model's input"),
        ("class 3", "all of its pixels are to be ignored"),
    )
    assert torch.equal(case.masks[0], torch.from_numpy(VISIBLE[:, 32:96]))
    assert torch.equal(case.masks[1], torch.from_numpy(CUT[:, 32:96]))
    assert torch.equal(case.ignore, torch.from_numpy(box(76, 40, 128, 64)[:, 32:96]))


def test_an_object_partly_ignored_keeps_its_other_pixels(model: Model) -> None:
    ((_, case),) = cases(model, [made(VISIBLE, ignore=box(32, 0, 40, 64))], whole=False)
    assert torch.equal(case.masks[0], torch.from_numpy(box(40, 0, 48, 16)[:, 32:96]))


@pytest.mark.parametrize("group", ["localization", "segmentation", "contrast"])
def test_every_metric_of_masks_is_as_without_the_objects(model: Model, group: str) -> None:
    whole = made(VISIBLE, CUT, OUTSIDE)
    plain = made(VISIBLE, CUT)
    found = [
        GROUPS[group](Maps.made(next(cases(model, [one], whole=False))[1], make_method("gae")))
        for one in (whole, plain)
    ]
    assert found[0] == found[1]
    assert found[0]
    for values in found[0].values():
        assert set(values) == {"class 0", "class 1"}


def test_an_image_without_an_object_to_find_is_left_out(model: Model, tmp_path: Path) -> None:
    samples = [
        made(OUTSIDE, name="outside"),
        made(VISIBLE, OUTSIDE, name="half"),
        made(IGNORED, ignore=IGNORED, name="ignored"),
        replace(made(OUTSIDE, name="unnamed"), unnamed=True),
    ]
    told = LeftOut()
    assert [i for i, _ in cases(model, samples, whole=False, left_out=told)] == ["half"]
    assert told.images == {
        "its objects are left out (it lies outside of the model's input)": 2,
        "its objects are left out (all of its pixels are to be ignored)": 1,
    }
    store = Store(tmp_path, {})
    outcome = run(
        model, {"hit": Fixed(at=0)}, samples, ["localization", "segmentation"], store,
        limit=9, slow_limit=0, whole=False,
    )  # fmt: skip
    assert outcome.pictures == ["half"]
    assert outcome.objects == {"it lies outside of the model's input": 1}
    assert outcome.left_out == told
    pointing = outcome.records.where(metric="pointing")
    assert pointing.by_instance() == {("half", "class 0"): 1.0}
    assert outcome.records.methods() == ["hit"]


def test_classes_that_are_cropped_away_need_not_be_recognised(model: Model) -> None:
    first = int(model(crop(made(VISIBLE).image)[None])[0].argmax())
    other = (first + 1) % 10
    sample = replace(made(VISIBLE, OUTSIDE), names=(f"class {first}", f"class {other}"))
    assert [i for i, _ in cases(model, [sample])] == ["a"]


def test_samples_whose_parts_do_not_fit_are_refused(model: Model) -> None:
    plain = made(VISIBLE)
    rotated = Image.Exif()
    rotated[274] = 6
    turned = plain.image.copy()
    turned.getexif()[274] = 6
    for change, words in (
        ({"masks": plain.masks[:, :, ::2]}, r"the masks of 'a' are of \(64, 64\) pixels"),
        ({"ignore": VISIBLE[::2]}, r"the pixels to ignore of 'a' are of \(32, 128\) pixels"),
        ({"names": ("class 0", "class 1")}, "has 1 masks and 2 names"),
        ({"image": plain.image.convert("L")}, "the picture of 'a' is L or not upright"),
        ({"image": turned}, "the picture of 'a' is RGB or not upright"),
    ):
        with pytest.raises(DatasetError, match=words):
            next(cases(model, [replace(plain, **change)], whole=False))
