"""Objects without visible pixels are left out of every metric that uses masks."""

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
from gradtoken.bench.exclusions import Exclusions
from gradtoken.bench.maps import Maps
from gradtoken.bench.run import run
from gradtoken.bench.scores import GROUPS
from gradtoken.bench.store import Store
from gradtoken.datasets import Sample
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


def noise_sample(*masks: np.ndarray, ignore: np.ndarray | None = None, name: str = "a") -> Sample:
    pixels = np.random.default_rng(0).integers(0, 256, (HIGH, WIDE, 3), dtype=np.uint8)
    names = tuple(f"class {i}" for i in range(len(masks)))
    return Sample(name, Image.fromarray(pixels), names, np.stack(masks), ignore)


def test_cases_skip_invisible_objects_with_reason(model: Model) -> None:
    sample = noise_sample(VISIBLE, OUTSIDE, CUT, IGNORED, ignore=box(76, 40, 128, 64))
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


def test_visible_objects_keep_pixels_that_are_not_ignored(model: Model) -> None:
    ((_, case),) = cases(model, [noise_sample(VISIBLE, ignore=box(32, 0, 40, 64))], whole=False)
    assert torch.equal(case.masks[0], torch.from_numpy(box(40, 0, 48, 16)[:, 32:96]))


@pytest.mark.parametrize("group", ["localization", "segmentation", "contrast"])
def test_metrics_equal_those_without_invisible_objects(model: Model, group: str) -> None:
    whole = noise_sample(VISIBLE, CUT, OUTSIDE)
    plain = noise_sample(VISIBLE, CUT)
    results = [
        GROUPS[group](Maps.compute(next(cases(model, [each], whole=False))[1], make_method("gae")))
        for each in (whole, plain)
    ]
    assert results[0] == results[1]
    assert results[0]
    for values in results[0].values():
        assert set(values) == {"class 0", "class 1"}


def test_cases_exclude_images_without_visible_objects(model: Model, tmp_path: Path) -> None:
    samples = [
        noise_sample(OUTSIDE, name="outside"),
        noise_sample(VISIBLE, OUTSIDE, name="half"),
        noise_sample(IGNORED, ignore=IGNORED, name="ignored"),
        replace(noise_sample(OUTSIDE, name="unnamed"), unnamed=True),
    ]
    exclusions = Exclusions()
    assert [i for i, _ in cases(model, samples, whole=False, exclusions=exclusions)] == ["half"]
    assert exclusions.images == {
        "its objects are left out (it lies outside of the model's input)": 2,
        "its objects are left out (all of its pixels are to be ignored)": 1,
    }
    store = Store(tmp_path, {})
    outcome = run(
        model, {"hit": Fixed(at=0)}, samples, ["localization", "segmentation"], store,
        limit=9, slow_limit=0, whole=False,
    )  # fmt: skip
    assert outcome.images == ["half"]
    assert outcome.objects == {"it lies outside of the model's input": 1}
    assert outcome.left_out == exclusions
    pointing = outcome.records.where(metric="pointing")
    assert pointing.by_instance() == {("half", "class 0"): 1.0}
    assert outcome.records.methods() == ["hit"]


def test_cases_do_not_require_cropped_classes_to_be_recognised(model: Model) -> None:
    first = int(model(crop(noise_sample(VISIBLE).image)[None])[0].argmax())
    other = (first + 1) % 10
    sample = replace(noise_sample(VISIBLE, OUTSIDE), names=(f"class {first}", f"class {other}"))
    assert [i for i, _ in cases(model, [sample])] == ["a"]
