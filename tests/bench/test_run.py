"""A run records failures, resumes to the same bytes, and measures the bundled scenes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import gradtoken
from gradtoken.attribution import Method, make_method
from gradtoken.bench import METRICS, column, measure
from gradtoken.bench.run import Outcome, run
from gradtoken.bench.store import Store
from gradtoken.bench.summary import rows
from gradtoken.bench.tables import write
from gradtoken.datasets import Scenes
from gradtoken.errors import DatasetError, MethodError, ModelError, OutputError
from gradtoken.images.preprocess import Preprocess
from gradtoken.metrics import Coverage, token_ap
from gradtoken.models import Model
from tests.bench.toys import Fixed, Picky, sample
from tests.conftest import tiny_vit

SAMPLES = [
    sample("s0", 0, names=("class 3", "twice")),
    *(sample(f"s{i}", i) for i in range(1, 5)),
]
"""The first has a name that two classes of the model have."""

LABELS = [*(f"class {i}" for i in range(8)), "twice", "twice"]


@dataclass(frozen=True, kw_only=True)
class Fussy(Fixed):
    """Fails on changed images and on the first unchanged one."""

    name: ClassVar[str] = "fussy"

    def __call__(self, trace, targets) -> Tensor:
        if any(torch.equal(trace.images[0], pixels[0]) for pixels in _plain(trace.model)[1:]):
            return super().__call__(trace, targets)
        raise ModelError("fussy wants a plain image.")


_PLAIN: dict[int, list[Tensor]] = {}


def _plain(model: Model) -> list[Tensor]:
    if id(model) not in _PLAIN:
        _PLAIN[id(model)] = [
            model.preprocess(sample.image)[None].to(model.dtype) for sample in SAMPLES
        ]
    return _PLAIN[id(model)]


@pytest.fixture(scope="module")
def model() -> Model:
    return gradtoken.wrap(tiny_vit(), labels=LABELS)


def firsts(model: Model) -> list[float]:
    return [float(pixels[0, 0, 0, 0]) for pixels in _plain(model)]


@pytest.fixture(scope="module")
def methods(model: Model) -> dict[str, Method]:
    """Methods that work, fail on some images, fail in some metrics, fail on every image."""
    values = sorted(firsts(model))
    return {
        "gae": make_method("gae"),
        "picky": Picky(below=(values[1] + values[2]) / 2),
        "fussy": Fussy(),
        "hopeless": Picky(below=99.0),
    }


GROUPS_RUN = ["localization", "coupling", "contrast", "perturbation"]


def go(
    model: Model,
    methods: dict[str, Method],
    folder: Path,
    samples: list = SAMPLES,
    limit: int = 5,
    **options: object,
) -> Outcome:
    store = Store(folder, {"a": 1})
    settings = {"limit": limit, "slow_limit": 3, "whole": False, **options}
    return run(model, methods, samples, GROUPS_RUN, store, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


@pytest.mark.parametrize("stops", [(1,), (2, 2), (3, 1), (1, 1, 1, 1)])
def test_run_resumed_equals_uninterrupted(
    model: Model,
    methods: dict[str, Method],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stops: tuple[int, ...],
) -> None:
    whole = go(model, methods, tmp_path / "whole")
    write(tmp_path / "whole", whole.records, "gae", "a run")
    add = Store.add
    for stop in stops:
        left = [stop]

        def interrupted(self: Store, *args: object, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            add(self, *args)

        monkeypatch.setattr(Store, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go(model, methods, tmp_path / "parts")
    monkeypatch.setattr(Store, "add", add)
    parts = go(model, methods, tmp_path / "parts")
    write(tmp_path / "parts", parts.records, "gae", "a run")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert list(parts.left_out.names) == ["twice"]
    assert replace(parts, records=whole.records) == whole


def test_run_records_failures_and_continues(
    model: Model, methods: dict[str, Method], tmp_path: Path
) -> None:
    outcome = go(model, methods, tmp_path)
    records = outcome.records
    assert outcome.images == [s.id for s in SAMPLES]
    assert outcome.unsupported == {"hopeless": f"picky does not like {firsts(model)[0]:.3f}."}
    assert records.methods() == ["gae", "picky", "fussy"]
    below = methods["picky"].below
    bad = [s.id for s, first in zip(SAMPLES, firsts(model), strict=True) if first < below]
    assert len(bad) == 2
    picky = outcome.failed["picky"]
    assert (picky.count, picky.of, picky.whole) == (2, 5, 2)
    own = records.where(method="picky")
    assert [p for p, m in zip(own.picture, own.metric, strict=True) if m == "failed@maps"] == bad
    assert set(own.where(metric="pointing").picture) == {s.id for s in SAMPLES} - set(bad)
    fussy = outcome.failed["fussy"]
    assert (fussy.count, fussy.of, fussy.whole) == (3, 5, 1)
    assert fussy.reason == "fussy wants a plain image."
    own = records.where(method="fussy")
    failed = {(p, m) for p, m, r in zip(own.picture, own.metric, own.reason, strict=True) if r}
    assert failed == {("s0", "failed@maps"), ("s1", "failed@contrast"), ("s2", "failed@contrast")}
    assert "positive_auc" in records.where(method="fussy").metrics()
    assert np.isnan(records.value[records.reason != ""]).all()


def test_rows_failure_rate(model: Model, methods: dict[str, Method], tmp_path: Path) -> None:
    table = {(r.method, r.metric): r.interval for r in rows(go(model, methods, tmp_path).records)}
    assert table["gae", "failed"][::3] == (0.0, 5)
    assert table["picky", "failed"][::3] == (0.4, 5)
    assert table["fussy", "failed"][::3] == (0.6, 5)
    assert not any(method == "hopeless" for method, _ in table)
    assert table["gae", "pointing"].n == 9
    assert table["picky", "pointing"].n == 5
    sound = {name: methods[name] for name in ("gae", "hopeless")}
    records = go(model, sound, tmp_path / "other").records
    assert not any(r.metric == "failed" for r in rows(records))


@pytest.mark.parametrize("count", [2, 12])
def test_run_stops_when_all_methods_fail(model: Model, tmp_path: Path, count: int) -> None:
    samples = [sample(f"s{i}", i) for i in range(count)]
    for _ in range(2):
        with pytest.raises(MethodError, match=r"none of the methods can serve .*: picky does not"):
            go(model, {"picky": Picky(below=99.0)}, tmp_path, samples, limit=count)
    assert len(list((tmp_path / "records").iterdir())) == min(count, 10)


def test_run_rejects_groups_without_values(model: Model, tmp_path: Path) -> None:
    bare = [replace(each, masks=None, names=(), label=3) for each in SAMPLES]
    store = Store(tmp_path, {})
    with pytest.raises(MethodError, match="nothing could be measured: these metrics need masks"):
        run(
            model, {"fixed": Fixed()}, bare, ["localization"], store,
            limit=2, slow_limit=0, whole=False,
        )  # fmt: skip


def changed(model: Model, what: str) -> Model:
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        if what == "parameter":
            module.blocks[2].mlp.fc1.bias[3] += 1e-6
        if what == "buffer":
            module.register_buffer("table", torch.ones(3), persistent=False)
    before, labels = model.preprocess, LABELS
    if what == "labels":
        labels = [*LABELS[:8], "twice", "thrice"]
    if what == "preprocessing":
        before = replace(before, transform=lambda image: model.preprocess.transform(image) - 0.1)
    return gradtoken.wrap(module, preprocess=before, labels=labels)


@pytest.mark.parametrize("what", ["parameter", "buffer", "labels", "preprocessing"])
def test_run_rejects_store_of_another_model(model: Model, tmp_path: Path, what: str) -> None:
    methods = {"fixed": Fixed()}
    go(model, methods, tmp_path)
    assert go(changed(model, "nothing"), methods, tmp_path).images
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="was measured with other weights, methods, metrics or"):
        go(changed(model, what), methods, tmp_path)
    assert contents(tmp_path) == before


def test_run_rejects_store_of_other_options(model: Model, tmp_path: Path) -> None:
    go(model, {"fixed": Fixed()}, tmp_path)
    with pytest.raises(OutputError, match="was measured with other weights, methods"):
        go(model, {"fixed": Fixed(at=1)}, tmp_path)
    with pytest.raises(OutputError, match="was measured with other weights, methods"):
        go(model, {"fixed": Fixed()}, tmp_path, slow_limit=2)
    assert len(go(model, {"fixed": Fixed()}, tmp_path, limit=4).images) == 4


def test_run_rejects_store_of_changed_image(model: Model, tmp_path: Path) -> None:
    go(model, {"fixed": Fixed()}, tmp_path)
    other = np.asarray(SAMPLES[1].image).copy()
    other[5, 5, 1] ^= 1
    masks = SAMPLES[1].masks.copy()
    masks[1, 50, 50] = False
    for change in ({"image": Image.fromarray(other)}, {"masks": masks}, {"ignore": masks[0]}):
        samples = [SAMPLES[0], replace(SAMPLES[1], **change), *SAMPLES[2:]]
        with pytest.raises(OutputError, match=r"s1.* was measured when its pixels or masks were"):
            go(model, {"fixed": Fixed()}, tmp_path, samples)


def test_run_rejects_duplicate_ids(model: Model, tmp_path: Path) -> None:
    samples = [SAMPLES[0], SAMPLES[1], replace(SAMPLES[2], id="s0")]
    with pytest.raises(DatasetError, match="two images have the id 's0'"):
        go(model, {"fixed": Fixed()}, tmp_path, samples)


def test_measure_records_metrics_of_each_object(demo: gradtoken.Model) -> None:
    scenes = Scenes("test", objects=2, seed=3)
    methods = {"ours": make_method("gradtoken"), "rollout": make_method("rollout")}
    steps: list[int] = []
    records, looked_at = measure(demo, methods, scenes, 2, progress=steps.append)
    assert steps == [1, 2]
    assert looked_at > records[-1]["scene"]
    assert len(records) == 2 * 2 * 2
    scene = scenes[records[0]["scene"]]
    explanation = gradtoken.explain(demo, scene.image, list(scene.labels))
    coverage = Coverage.of_scene(scene, (14, 14))
    maps = explanation.tokens[0].flatten(1).double()
    expected = coverage.metrics(explanation.tokens[0])
    expected["token_ap"] = token_ap(maps, coverage.tokens)
    for metric in ("pointing", "share", "energy", "token_ap"):
        values = [r[metric] for r in records if r["method"] == "ours"][:2]
        torch.testing.assert_close(torch.tensor(values).double(), expected[metric])
    assert records[0]["coupling"] == pytest.approx(gradtoken.coupling(explanation))
    assert np.allclose(column(records, "rollout", "coupling"), 1)
    assert set(METRICS) < set(records[0])


def test_measure_masks_follow_crop(demo: gradtoken.Model) -> None:
    """The left half of the scene alone: what is measured is the metric on the left half's masks."""

    def left_half(image: Image.Image) -> torch.Tensor:
        return demo.preprocess(image.crop((0, 0, 56, 112)).resize((112, 112)))

    model = gradtoken.wrap(demo.module, preprocess=Preprocess(left_half), labels=list(demo.labels))
    scenes = Scenes("test", objects=(1, 2), seed=5)
    records, _ = measure(model, {"ours": make_method("gae")}, scenes, 2)
    scene = scenes[records[0]["scene"]]
    explanation = gradtoken.explain(model, scene.image, list(scene.labels), method="gae")
    cut = torch.from_numpy(scene.masks[:, :, :56].copy()).repeat_interleave(2, 2)
    tokens = torch.nn.functional.avg_pool2d(cut.double()[None], 8)[0].flatten(1)
    relevance = explanation.tokens[0].flatten(1).double()
    for k in range(len(scene.labels)):
        expected = float((relevance[k] * tokens[k]).sum() / relevance[k].sum())
        assert records[k]["energy"] == pytest.approx(expected, abs=0.02)


def test_measure_gradtoken_is_ahead_of_attention(demo: gradtoken.Model) -> None:
    names = ("gradtoken", "raw-attention", "rollout")
    methods = {name: make_method(name) for name in names}
    records, _ = measure(demo, methods, Scenes("test", objects=(2, 3)), 24)
    mean = {n: {f: np.nanmean(column(records, n, f)) for f in METRICS} for n in names}
    for other in names[1:]:
        for metric in ("pointing", "token_ap", "share"):
            assert mean["gradtoken"][metric] > mean[other][metric] + 0.05
        assert mean[other]["coupling"] == pytest.approx(1)
    assert mean["gradtoken"]["coupling"] < 0.5
