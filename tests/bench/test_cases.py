"""Which images are measured, and masks on the model's input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import gradtoken
from gradtoken.bench.cases import cases, recognised
from gradtoken.datasets import Sample, Scenes, SceneSamples
from gradtoken.errors import ModelError


def test_cases_yield_recognised_scenes(demo: gradtoken.Model) -> None:
    samples = SceneSamples(Scenes("test", objects=(1, 2), seed=3), count=20)
    results = [case for _, case in cases(demo, samples)]
    scenes = Scenes("test", objects=(1, 2), seed=3)
    expected = []
    for i in range(20):
        top = demo(demo.preprocess(scenes[i].image)[None])[0].topk(len(scenes[i].labels)).indices
        if set(top.tolist()) == set(scenes[i].labels):
            expected.append(f"scene-{i:06d}")
    assert [case.sample.id for case in results] == expected
    assert results[0].classes == tuple(demo.labels.find(n) for n in results[0].sample.names)
    assert (results[0].masks.numpy() == results[0].sample.masks).all()
    assert len([case for _, case in cases(demo, samples, whole=False)]) == 20


def test_cases_sigmoid_recognises_above_half() -> None:
    model = gradtoken.load("demo", device="cpu", activation="sigmoid")
    samples = SceneSamples(Scenes("test", objects=(1, 2), seed=3), count=20)
    expected = []
    for i in range(20):
        sample = samples[i]
        p = model(model.preprocess(sample.image)[None])[0].sigmoid()
        if all(p[model.labels.find(name)] > 0.5 for name in sample.names):
            expected.append(sample.id)
    assert [name for name, _ in cases(model, samples)] == expected
    assert len(expected) > 0


def test_cases_skip_done_samples(demo: gradtoken.Model) -> None:
    samples = SceneSamples(Scenes("test", objects=1), count=3)
    results = list(
        cases(demo, samples, skip=lambda sample: sample.id == "scene-000001", whole=False)
    )
    assert [name for name, _ in results] == [f"scene-{i:06d}" for i in range(3)]
    assert results[1][1] is None


def test_cases_masks_follow_crop() -> None:
    model = gradtoken.load("timm/vit_tiny_patch16_224", pretrained=False, device="cpu")
    mask = np.zeros((300, 600), dtype=bool)
    mask[:, :300] = True
    image = Image.fromarray(np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, -1))
    label = model.labels[5]
    ignore = np.zeros_like(mask)
    ignore[:, 400:] = True
    sample = Sample("x", image, (label, "no such class"), np.stack([mask, ~mask]), ignore)
    ((_, case),) = cases(model, [sample], whole=False)
    assert case.classes == (5,)
    assert case.names == (label.split(",")[0],)
    white = model.preprocess.to_image(case.pixels[0])
    visible = torch.from_numpy(np.asarray(white)[..., 0] > 127)
    assert (visible == case.masks[0]).double().mean() > 0.98
    left, _, right, _ = model.preprocess.box(image.size)
    centres = left + (torch.arange(224) + 0.5) * (right - left) / 224
    assert torch.equal(case.ignore, (centres >= 400).expand(224, -1))
    assert not case.masks[0, :, 113:].any()


def test_cases_targets_without_class_or_mask(demo: gradtoken.Model) -> None:
    scene = Scenes("test", objects=1)[0]
    unnamed = Sample("a", scene.image, ("object",), scene.masks, unnamed=True)
    labelled = Sample("b", scene.image, label=7)
    wild = Sample("c", scene.image, label=10_000)
    results = dict(cases(demo, [unnamed, labelled, wild], whole=False))
    predicted = int(demo(demo.preprocess(scene.image)[None])[0].argmax())
    assert results["a"].classes == (predicted,)
    assert results["a"].label is None
    assert results["b"].classes == (7,)
    assert results["b"].masks is None
    assert "c" not in results


def test_cases_reject_model_without_classes_of_data_set(demo: gradtoken.Model) -> None:
    scene = Scenes("test", objects=1)[0]
    samples = [Sample(str(i), scene.image, ("quasar",), scene.masks) for i in range(250)]
    with pytest.raises(ModelError, match="none of the first 200 images shows a class that demo"):
        list(cases(demo, samples))


def test_cases_reject_text_model() -> None:
    model = gradtoken.load("open_clip/ViT-S-32", pretrained=False, device="cpu")
    with pytest.raises(ModelError, match="compares images with text and has no classes"):
        next(cases(model, SceneSamples()))


def test_recognised_scenes_have_objects_as_top_classes(demo: gradtoken.Model) -> None:
    scenes = Scenes("test", objects=(1, 2), seed=3)
    results = dict(recognised(demo, scenes, 30))
    for index in range(30):
        scene = scenes[index]
        logits = demo(demo.preprocess(scene.image)[None])[0]
        top = set(logits.topk(len(scene.labels)).indices.tolist())
        assert (index in results) == (top == set(scene.labels))
