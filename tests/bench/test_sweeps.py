"""Variants of an image in shared batches, against loops that run the model on one at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.bench.cases import Case, cases
from gradtoken.bench.image_records import image_records
from gradtoken.bench.maps import Maps
from gradtoken.bench.sweeps import Sweeps
from gradtoken.errors import ModelError
from gradtoken.metrics.pixel_replacement import CHUNK, Replacement
from tests.bench.toys import Fixed, sample
from tests.conftest import tiny_vit

SIDE = 64
PIXELS = SIDE * SIDE


@pytest.fixture(scope="module")
def model() -> gradtoken.Model:
    return gradtoken.wrap(tiny_vit())


@pytest.fixture
def case(model: gradtoken.Model) -> Case:
    ((_, case),) = cases(model, [sample("a", 0)], whole=False)
    return case


class Counting:
    """A function that keeps the sizes of the batches it is called with."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return images.flatten(1)[:, :3].clone()


def mixed(first: Tensor, second: Tensor, relevance: Tensor, count: int, sign: int = 1) -> Tensor:
    """`first` with its `count` most (sign 1) or least (-1) relevant pixels from `second`."""
    order = np.argsort(-sign * relevance.flatten().numpy(), kind="stable")
    out = first.clone().flatten(2)
    out[..., order[:count]] = second.expand_as(first).flatten(2)[..., order[:count]]
    return out.view_as(first)


def by_loops(case: Case, relevance: Tensor, leading: int) -> dict[str, float]:
    """The metrics of both groups, one variant at a time, from their definitions."""
    model, image = case.trace.model, case.pixels
    c = case.classes[leading]
    mean, std = (torch.tensor(v).double().view(1, 3, 1, 1) for v in
                 (model.preprocess.mean, model.preprocess.std))  # fmt: skip
    black, grey = -mean / std, torch.zeros(1, 3, 1, 1).double()

    def p(x: Tensor) -> float:
        return float(model.module(x).detach()[0].softmax(-1)[c])

    def hit(x: Tensor) -> float:
        return float(int(model.module(x)[0].argmax()) == c)

    values = {}
    for name, sign in (("positive", 1), ("negative", -1)):
        steps = [mixed(image, black, relevance, int(k / 10 * PIXELS), sign) for k in range(1, 10)]
        hits = [hit(x) for x in steps]
        values[f"{name}_probability"] = float(np.mean([p(x) for x in steps]))
        values[f"{name}_auc"] = 100 * float(np.trapezoid(hits, dx=0.1))
        values |= {f"{name}@{k / 10:.1f}": h for k, h in enumerate(hits, start=1)}
        values[f"{name}@0.0"] = hit(image)
    most, least = (
        [p(mixed(image, grey, relevance, int(k / 10 * PIXELS), sign)) for k in range(1, 11)]
        for sign in (1, -1)
    )
    whole = p(image)
    values["aopc"] = float(np.mean([whole - v for v in most]))
    values["log_odds"] = float(np.mean([np.log(v / whole) for v in most]))
    values["abpc"] = float(np.mean(np.array([whole, *least]) - np.array([whole, *most])))
    counts = [round(step * PIXELS / 14) for step in range(15)]
    blurred = gaussian_blur(image, [11, 11], [5.0, 5.0])
    for name, (start, end) in {"insertion": (blurred, image), "deletion": (image, grey)}.items():
        curve = [p(mixed(start, end, relevance, count)) for count in counts]
        values[name] = float(np.trapezoid(curve, dx=1 / 14))
    return values


def test_records_of_perturbation_groups_equal_loops(case: Case) -> None:
    methods = {"gae": make_method("gae"), "one patch": Fixed(at=9), "blank": Fixed(value=0.0)}
    groups = ["perturbation", "insertion-deletion"]
    records = list(image_records(case, methods, groups, slow=False))
    assert not [r for r in records if r.reason]
    leading = int(case.trace.logits[0, list(case.classes)].argmax())
    for name, method in methods.items():
        relevance = Maps.compute(case, method).pixels[leading]
        values = {r.metric: r.value for r in records if r.method == name}
        expected = by_loops(case, relevance, leading)
        # the label is the leading of the named classes, which this model puts far from the top
        assert values.keys() == expected.keys()
        assert values == pytest.approx(expected, abs=1e-6)


def test_every_distinct_variant_runs_once_in_full_batches(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, model = Counting(), case.trace.model
    seen: list[bytes] = []

    def counted(images: Tensor) -> Tensor:
        seen.extend(image.numpy().tobytes() for image in images)
        predict(images)
        return model(images)

    monkeypatch.setitem(case.__dict__, "sweeps", Sweeps(counted))
    names = ("gae", "rollout", "grad-cam")
    methods = {name: make_method(name) for name in names}
    list(image_records(case, methods, ["perturbation", "insertion-deletion"], slow=False))
    assert len(set(seen)) == len(seen)
    # 9 and 9 black, 9 and 9 grey, 13 and 13 of the curves less the one at a half, each method; the
    # image, grey and blurred
    assert len(seen) == 3 * (4 * 9 + 2 * 13 - 1) + 3
    assert predict.sizes[:-1] == [CHUNK] * (len(seen) // CHUNK)


def test_sweeps_run_equal_requests_once() -> None:
    images, others = torch.rand(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    places = torch.randperm(16)[None]
    predict = Counting()
    sweeps = Sweeps(predict)
    first = Replacement(images, others, places, (0, 5, 16))
    sweeps.request(first)
    assert predict.sizes == []
    again = Replacement(images.clone(), others.clone(), places.clone(), (16, 0, 7))
    torch.testing.assert_close(sweeps.logits(first), first.logits(predict))
    assert predict.sizes == [3, 3]
    torch.testing.assert_close(sweeps.logits(again), again.logits(predict))
    assert predict.sizes == [3, 3, 1, 3]
    tied = Replacement(images, others, places.clone(), (5,))
    tied.places[places < 5] = places[places < 5].flip(0)
    sweeps.logits(tied)
    assert predict.sizes == [3, 3, 1, 3]
    backwards = Replacement(images, others, 15 - places, (5,))
    torch.testing.assert_close(sweeps.logits(backwards), backwards.logits(predict))


def test_failed_forward_is_recorded_and_tried_again(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def fails_once(images: Tensor) -> Tensor:
        calls.append(len(images))
        if len(calls) == 1:
            raise ModelError("the model gave out.")
        return case.trace.model(images)

    monkeypatch.setitem(case.__dict__, "sweeps", Sweeps(fails_once))
    records = list(image_records(case, {"a": Fixed(), "b": Fixed(at=3)}, ["perturbation"], False))
    failed = [(r.method, r.metric, r.reason) for r in records if r.reason]
    assert failed == [("a", "failed@perturbation", "the model gave out.")]
    assert {r.method for r in records if not r.reason} == {"b"}
