"""Groups of metrics on a scene, against the metrics they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.bench.cases import Case, cases
from gradtoken.bench.maps import Maps, maps_of
from gradtoken.bench.scores import GROUPS
from gradtoken.images.patch_grid import to_pixels
from gradtoken.metrics.class_sensitivity import painted_out
from tests.bench.toys import Fixed, sample
from tests.conftest import tiny_vit


def test_localization_and_coupling_values(case: Case, maps: Maps) -> None:
    values = GROUPS["localization"](maps)
    coverage = torch.nn.functional.avg_pool2d(case.masks[None].double(), 8)[0].flatten(1)
    for k, name in enumerate(case.names):
        row = maps.flat[k].double()
        assert values["pointing"][name] == float(coverage[k, row.argmax()] > 0.3)
        expected = float((row * coverage[k]).sum() / (row * coverage.sum(0)).sum())
        assert values["share"][name] == pytest.approx(expected)
    pairs = np.corrcoef(maps.flat.numpy())[np.triu_indices(len(case.names), 1)]
    assert GROUPS["coupling"](maps)["coupling"][case.names[0]] == pytest.approx(pairs.mean())


def test_top1_random_class_is_absent_and_same_for_all_methods(case: Case, maps: Maps) -> None:
    (value,) = GROUPS["top1-random"](maps)["top1_random"].values()
    attention = Maps.compute(case, make_method("raw-attention"))
    assert GROUPS["top1-random"](attention)["top1_random"][case.names[0]] == pytest.approx(1)
    absent = [
        c
        for c in range(len(case.trace.model.labels))
        if torch.allclose(maps_of(maps.method, case.trace, [c])[0], maps.absent)
    ]
    assert len(absent) == 1
    assert absent[0] not in case.classes
    leading = int(case.trace.logits[0, list(case.classes)].argmax())
    expected = np.corrcoef(maps.flat[leading], maps.absent.flatten())[0, 1]
    assert value == pytest.approx(expected)


def test_segmentation_counts_positive_relevance(case: Case) -> None:
    maps = Maps.compute(case, make_method("cdam"))
    values = GROUPS["segmentation"](maps)
    name = case.names[0]
    positive = to_pixels(maps.tokens.clamp_min(-9), (112, 112))[0].clamp_min(0)
    foreground = positive / positive.max() > (positive / positive.max()).mean()
    assert values["correct@segmentation"][name] == int((foreground == case.masks[0]).sum())
    assert values["both@foreground"][name] == int((foreground & case.masks[0]).sum())
    assert values["labelled@segmentation"][name] == 112 * 112


def test_perturbation_and_insertion_values(case: Case, maps: Maps, demo: gradtoken.Model) -> None:
    values = GROUPS["perturbation"](maps)
    leading = int(case.trace.logits[0, list(case.classes)].argmax())
    name = case.names[leading]
    assert values["positive@0.0"][name] == 1
    order = maps.pixels[leading].flatten().argsort(descending=True, stable=True)
    changed = case.pixels.clone().flatten(2)
    black = -torch.tensor(demo.preprocess.mean) / torch.tensor(demo.preprocess.std)
    changed[0, :, order[: int(0.3 * 112 * 112)]] = black[:, None]
    hit = int(demo(changed.view_as(case.pixels))[0].argmax()) == case.classes[leading]
    assert values["positive@0.3"][name] == hit
    more = GROUPS["insertion-deletion"](maps)
    assert set(more) == {"insertion", "deletion", "aopc", "log_odds", "abpc"}
    assert more["insertion"][name] > more["deletion"][name]
    assert more["abpc"][name] > 0


def test_contrast_paints_out_each_object(case: Case, maps: Maps) -> None:
    values = GROUPS["contrast"](maps)["contrast_response"]
    assert set(values) == set(case.names)
    attention = GROUPS["contrast"](Maps.compute(case, make_method("raw-attention")))
    if len(case.names) == 2:
        assert sum(attention["contrast_response"].values()) == pytest.approx(1)
    assert np.mean(list(values.values())) > 0.5
    painted = painted_out(case.pixels, case.masks[:1])
    assert torch.equal(painted[0, :, 0, 0], case.pixels[0, :, 0, 0])
    assert not torch.equal(painted, case.pixels)


def test_top1_random_without_absent_class() -> None:
    model = gradtoken.wrap(tiny_vit(num_classes=2))
    image = sample("a", 0, names=("class 0", "class 1"))
    ((_, case),) = cases(model, [image])
    assert GROUPS["top1-random"](Maps.compute(case, make_method("gae"))) == {}


@pytest.mark.parametrize(
    ("known", "label"),
    [
        ({"names": ("class 3",), "masks": None}, 3),
        ({"names": (), "masks": None, "label": 3}, 3),
        ({"names": ("class 3", "class 7")}, None),
        ({"names": (), "masks": None, "unnamed": True}, "predicted"),
    ],
    ids=["name", "number", "objects", "unnamed"],
)
def test_perturbation_hit_is_label_of_data_set(known: dict, label: object) -> None:
    """Also where the model is wrong about the image, and whether a folder's class is a number or a
    name."""
    model = gradtoken.wrap(tiny_vit())
    image = sample("a", 0, **known)
    ((_, case),) = cases(model, [image], whole=False)
    logits = model(case.pixels)[0]
    predicted = int(logits.argmax())
    assert predicted not in (3, 7)
    expected = {None: [3, 7][int(logits[[3, 7]].argmax())], "predicted": predicted}.get(
        label, label
    )
    maps = Maps.compute(case, make_method("gae"))
    values = GROUPS["perturbation"](maps)
    leading = case.classes.index(expected)
    order = maps.pixels[leading].flatten().argsort(descending=True, stable=True)
    black = -torch.tensor(model.preprocess.mean) / torch.tensor(model.preprocess.std)
    for k in range(10):
        changed = case.pixels.clone().flatten(2)
        changed[0, :, order[: k * 4096 // 10]] = black.double()[:, None]
        hit = int(model(changed.view_as(case.pixels))[0].argmax()) == expected
        assert values[f"positive@{k / 10:.1f}"][case.names[leading]] == hit
    assert values["positive@0.0"][case.names[leading]] == (label == "predicted")


def test_localization_of_blank_maps_is_zero() -> None:
    model = gradtoken.wrap(tiny_vit())
    masks = np.zeros((2, 64, 64), bool)
    masks[0, :30, :30], masks[1, 40:, 40:] = True, True
    ((_, case),) = cases(model, [sample("a", 0, masks=masks)], whole=False)
    for value in (0.0, -1.0):
        values = GROUPS["localization"](Maps.compute(case, Fixed(value=value)))
        for metric in ("pointing", "share", "energy"):
            assert values[metric] == {"class 3": 0.0, "class 7": 0.0}, metric
    values = GROUPS["localization"](Maps.compute(case, Fixed(value=1.0)))
    assert values["pointing"] == {"class 3": 1.0, "class 7": 0.0}
