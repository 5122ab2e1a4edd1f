"""Measuring on scenes: which count, and what is recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.bench import FIGURES, column, measure, recognised
from gradtoken.datasets import Scenes
from gradtoken.images.preprocess import Preprocess
from gradtoken.metrics import Coverage, token_ap


@pytest.fixture(scope="module")
def demo() -> gradtoken.Model:
    return gradtoken.load("demo", device="cpu")


def test_recognised_scenes_are_those_whose_objects_are_the_top_classes(
    demo: gradtoken.Model,
) -> None:
    scenes = Scenes("test", objects=(1, 2), seed=3)
    found = dict(recognised(demo, scenes, 30))
    for index in range(30):
        scene = scenes[index]
        logits = demo(demo.preprocess(scene.image)[None])[0]
        top = set(logits.topk(len(scene.labels)).indices.tolist())
        assert (index in found) == (top == set(scene.labels))


def test_records_are_the_figures_of_each_object(demo: gradtoken.Model) -> None:
    scenes = Scenes("test", objects=2, seed=3)
    methods = {"ours": make_method("gradtoken"), "rollout": make_method("rollout")}
    steps: list[int] = []
    records, seen = measure(demo, methods, scenes, 2, progress=steps.append)
    assert steps == [1, 2]
    assert seen > records[-1]["scene"]
    assert len(records) == 2 * 2 * 2
    scene = scenes[records[0]["scene"]]
    found = gradtoken.explain(demo, scene.image, list(scene.labels))
    coverage = Coverage.of_scene(scene, (14, 14))
    maps = found.tokens[0].flatten(1).double()
    expected = coverage.figures(found.tokens[0])
    expected["token_ap"] = token_ap(maps, coverage.tokens)
    for figure in ("pointing", "share", "energy", "token_ap"):
        values = [r[figure] for r in records if r["method"] == "ours"][:2]
        torch.testing.assert_close(torch.tensor(values).double(), expected[figure])
    assert records[0]["coupling"] == pytest.approx(gradtoken.coupling(found))
    assert np.allclose(column(records, "rollout", "coupling"), 1)
    assert set(FIGURES) < set(records[0])


def test_masks_follow_a_models_crop(demo: gradtoken.Model) -> None:
    """The left half of the scene alone: what is measured is the metric on the left half's masks."""

    def left_half(image: Image.Image) -> torch.Tensor:
        return demo.preprocess(image.crop((0, 0, 56, 112)).resize((112, 112)))

    model = gradtoken.wrap(demo.module, preprocess=Preprocess(left_half), labels=list(demo.labels))
    scenes = Scenes("test", objects=(1, 2), seed=5)
    records, _ = measure(model, {"ours": make_method("gae")}, scenes, 2)
    scene = scenes[records[0]["scene"]]
    found = gradtoken.explain(model, scene.image, list(scene.labels), method="gae")
    cut = torch.from_numpy(scene.masks[:, :, :56].copy()).repeat_interleave(2, 2)
    tokens = torch.nn.functional.avg_pool2d(cut.double()[None], 8)[0].flatten(1)
    relevance = found.tokens[0].flatten(1).double()
    for k in range(len(scene.labels)):
        expected = float((relevance[k] * tokens[k]).sum() / relevance[k].sum())
        assert records[k]["energy"] == pytest.approx(expected, abs=0.02)


def test_gradtoken_is_ahead_of_attention_alone_on_the_bundled_scenes(demo: gradtoken.Model) -> None:
    names = ("gradtoken", "raw-attention", "rollout")
    methods = {name: make_method(name) for name in names}
    records, _ = measure(demo, methods, Scenes("test", objects=(2, 3)), 24)
    mean = {n: {f: np.nanmean(column(records, n, f)) for f in FIGURES} for n in names}
    for other in names[1:]:
        for figure in ("pointing", "token_ap", "share"):
            assert mean["gradtoken"][figure] > mean[other][figure] + 0.05
        assert mean[other]["coupling"] == pytest.approx(1)
    assert mean["gradtoken"]["coupling"] < 0.5
