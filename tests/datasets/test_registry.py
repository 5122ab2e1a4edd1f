"""Data sets by name, and scenes as samples."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from gradtoken.datasets import Scenes, SceneSamples, open_samples
from gradtoken.errors import DatasetError
from tests.datasets.files import write_coco, write_imagenet_seg, write_voc


def test_open_samples_scenes() -> None:
    samples = open_samples("scenes")
    scenes = Scenes("test", objects=(2, 3))
    for index, sample in enumerate(islice(samples, 3)):
        assert sample.id == f"scene-{index:06d}"
        assert sample.names == scenes[index].names
        assert (sample.masks == scenes[index].masks).all()
    other = Scenes("test", objects=(2, 3), seed=7)[0]
    assert (open_samples("scenes:7")[0].masks == other.masks).all()
    assert len(SceneSamples(count=4)) == len(list(SceneSamples(count=4))) == 4


def test_open_samples_all_kinds(tmp_path: Path) -> None:
    write_imagenet_seg(tmp_path / "seg.mat")
    write_voc(tmp_path / "v")
    write_coco(tmp_path / "c")
    for spec in (f"voc:{tmp_path}/v", f"coco:{tmp_path}/c", f"imagenet-seg:{tmp_path}/seg.mat"):
        samples = open_samples(spec)
        assert samples.kind == spec.partition(":")[0]
        assert len(samples) == 2


def test_open_samples_rejects_unknown_names() -> None:
    with pytest.raises(DatasetError, match="no data set is named 'coc:x'; did you mean 'coco'"):
        open_samples("coc:x")
    with pytest.raises(DatasetError, match=r"named 'voc'; use scenes, scenes:SEED, voc:DIR"):
        open_samples("voc")
