"""The grid pointing game in a run: which mosaics, and their values on maps that are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.bench.cases import cases
from gradtoken.bench.mosaics import mosaics
from gradtoken.bench.run import Outcome, run
from gradtoken.bench.store import Store
from gradtoken.errors import MethodError, OutputError
from tests.bench.toys import Fixed, Picky, sample
from tests.conftest import tiny_vit

CLASSES = (3, 7, 3, 1, 5, 3, 2, 4, 0, 9)


def sample_of(i: int, **known: object):
    return sample(f"s{i}", i, names=(), masks=None, label=CLASSES[i], **known)


SAMPLES = [sample_of(i) for i in range(len(CLASSES))]


@pytest.fixture(scope="module")
def model() -> gradtoken.Model:
    return gradtoken.wrap(tiny_vit())


def go(model: gradtoken.Model, folder: Path, methods: dict, **options: object) -> Outcome:
    settings = {"limit": 10, "slow_limit": 5, "whole": False, **options}
    samples = settings.pop("samples", SAMPLES)
    groups = settings.pop("groups", ["grid-pointing"])
    return run(model, methods, samples, groups, Store(folder, {}), **settings)


def test_mosaics_have_images_of_different_classes_in_order(model: gradtoken.Model) -> None:
    found = (case for _, case in cases(model, SAMPLES, whole=False))
    fours = [[(cell.id, cell.class_id) for cell in cells] for cells in mosaics(found)]
    assert fours == [
        [("s0", 3), ("s1", 7), ("s3", 1), ("s4", 5)],
        [("s2", 3), ("s6", 2), ("s7", 4), ("s8", 0)],
    ]


def test_grid_pointing_of_known_maps(model: gradtoken.Model, tmp_path: Path) -> None:
    """A patch in the second cell is right for the second class alone."""
    outcome = go(model, tmp_path, {"corner": Fixed(at=7), "gae": make_method("gae")})
    assert outcome.images == [s.id for s in SAMPLES]
    records = outcome.records.where(method="corner", metric="grid_pointing")
    assert (
        records.picture.tolist()
        == ["mosaic of s0, s1, s3, s4"] * 4 + ["mosaic of s2, s6, s7, s8"] * 4
    )
    assert records.object.tolist()[:4] == ["class 3", "class 7", "class 1", "class 5"]
    # the patch is bright up to half a patch away, within its cell: the corner of the image
    assert records.value.tolist() == [0.0, 1.0, 0.0, 0.0] * 2


def test_grid_pointing_equals_explanation_of_the_mosaic(
    model: gradtoken.Model, tmp_path: Path
) -> None:
    records = go(model, tmp_path, {"gae": make_method("gae")}, slow_limit=1).records
    small = [
        torch.nn.functional.interpolate(
            model.preprocess(SAMPLES[i].image)[None].double(), (32, 32), mode="bilinear",
            antialias=True,
        )
        for i in (0, 1, 3, 4)
    ]  # fmt: skip
    whole = torch.cat([torch.cat(small[:2], 3), torch.cat(small[2:], 3)], 2)
    explanation = gradtoken.explain(model, whole, [[3, 7, 1, 5]], method="gae")
    pixels = gradtoken.metrics.to_pixels(explanation.tokens[0], (64, 64)).clamp_min(0)
    quarters = [pixels[0, :32, :32], pixels[1, :32, 32:], pixels[2, 32:, :32], pixels[3, 32:, 32:]]
    expected = [float(q.sum() / m.sum()) for q, m in zip(quarters, pixels, strict=True)]
    assert records.value.tolist() == pytest.approx(expected, abs=1e-5)


def test_grid_pointing_resumes_and_records_failures(model: gradtoken.Model, tmp_path: Path) -> None:
    methods = {"corner": Fixed(at=7), "picky": Picky(below=99.0)}
    first = go(model, tmp_path, methods)
    assert first.unsupported == {"picky": first.unsupported["picky"]}
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "records").iterdir()}
    assert len(files) == 12
    again = go(model, tmp_path, methods)
    assert (again.records.value == first.records.value)[first.records.reason == ""].all()
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "records").iterdir()} == files
    changed = [*SAMPLES[:8], sample("s8", 99, names=(), masks=None, label=0)]
    with pytest.raises(OutputError, match=r"s8.* was measured when its pixels"):
        go(model, tmp_path, methods, samples=changed)


def test_grid_pointing_beside_other_groups(model: gradtoken.Model, tmp_path: Path) -> None:
    groups = ["top1-random", "grid-pointing"]
    outcome = go(model, tmp_path, {"gae": make_method("gae")}, groups=groups, limit=4)
    assert len(outcome.images) == 4
    assert outcome.records.metrics() == ["top1_random"]  # of four images two are of one class
    with pytest.raises(MethodError, match="nothing could be measured"):
        go(model, tmp_path / "none", {"gae": make_method("gae")}, slow_limit=0)
