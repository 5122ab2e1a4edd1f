"""FinerCAM's target against its equation, its published code, and plain autograd."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_grad_cam.utils.model_targets import FinerWeightedTarget
from torch import Tensor

import gradtoken
from gradtoken import above, contrast, finer, text
from gradtoken.errors import TargetError
from gradtoken.models import Model
from gradtoken.targets import Finer, parse_finer, resolve, resolve_rows
from gradtoken.targets.labels import Labels
from tests.cli.program import invoke, json_lines
from tests.conftest import images_for, inputs, tiny_vit
from tests.models.zoo import ZOO, seeded
from tests.oracle import Written


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "scene.png"
    path.parent.mkdir()
    gradtoken.datasets.Scenes("test", objects=2)[0].image.save(path)
    return path


NAMES = ["tabby", "dog", "bird", "crane", "fish"]
LABELS = Labels(NAMES)
LOGITS = torch.tensor([[1.0, 3.0, 2.5, -1.0, 1.2], [0.5, 0.0, 4.0, 1.0, 2.0]]).double()


def by_hand(z: Tensor, c: int, others: list[int], alpha: float, p: Tensor) -> Tensor:
    top = sum(p[i] * (z[c] - alpha * z[i]) for i in others)
    return top / sum(p[i] for i in others)


@pytest.mark.parametrize(("alpha", "count"), [(1.0, 3), (0.6, 2), (0.0, 9)])
def test_finer_equals_equation_and_published_code(alpha: float, count: int) -> None:
    targets = resolve(finer("dog", alpha, count), LOGITS, LABELS)
    values = targets.scores(LOGITS[:, None])
    for b, z in enumerate(LOGITS):
        others = sorted((i for i in range(5) if i != 1), key=lambda i: abs(float(z[i] - z[1])))
        others = others[:count]
        assert targets.rows[b][0].classes() == (1, *others)
        expected = by_hand(z, 1, others, alpha, z.softmax(-1))
        torch.testing.assert_close(values[b, 0], expected)
        published = FinerWeightedTarget(1, others, alpha)(z)
        torch.testing.assert_close(values[b, 0], published, rtol=1e-7, atol=1e-7)


def test_finer_by_sigmoid_probabilities() -> None:
    targets = resolve(finer(2), LOGITS, LABELS, activation="sigmoid")
    expected = by_hand(LOGITS[0], 2, [1, 4, 0], 1.0, LOGITS[0].sigmoid())
    torch.testing.assert_close(targets.scores(LOGITS[:, None])[0, 0], expected)


def test_finer_stays_finite_where_nearest_classes_are_impossible() -> None:
    z = torch.tensor([[900.0, 0.0, -1.0, -2.0, -3.0]])
    (row,) = resolve_rows(finer(1), z, LABELS)
    assert torch.isfinite(row[0].score(z)).all()


def test_nearest_classes_stay_those_of_the_image() -> None:
    (row, _) = resolve_rows(finer(0), LOGITS, LABELS)
    assert row[0].others == (4, 2, 1)
    changed = LOGITS[1]
    expected = by_hand(changed, 0, [4, 2, 1], 1.0, changed.softmax(-1))
    torch.testing.assert_close(row[0].score(changed), expected)


def test_finer_of_predicted_all_and_above() -> None:
    rows = resolve_rows(finer(), LOGITS, LABELS, top_k=2)
    assert [[t.id for t in row] for row in rows] == [[1, 2], [2, 4]]
    assert all(isinstance(t, Finer) and len(t.others) == 3 for row in rows for t in row)
    rows = resolve_rows(finer("all", count=1), LOGITS, LABELS)
    assert [t.id for t in rows[0]] == [0, 1, 2, 3, 4]
    rows = resolve_rows(finer(above(0.3), 0.5), LOGITS, LABELS)
    assert [[(t.id, t.alpha) for t in row] for row in rows] == [[(1, 0.5), (2, 0.5)], [(2, 0.5)]]
    mixed = resolve_rows([finer("fish"), "fish", contrast(0, 1)], LOGITS, LABELS)
    assert [type(t).__name__ for t in mixed[0]] == ["Finer", "ClassTarget", "Contrast"]


def test_finer_as_data_and_probability() -> None:
    targets = resolve(finer("dog", 0.6, 2), LOGITS, LABELS)
    assert targets.labels(LABELS) == [["dog"], ["dog"]]
    others = list(targets.rows[0][0].others)
    data = targets.rows[0][0].to_dict()
    assert data == {"kind": "finer", "id": 1, "others": others, "alpha": 0.6}
    expected = LOGITS.softmax(-1)[:, 1]
    torch.testing.assert_close(targets.probabilities(LOGITS, "softmax")[:, 0], expected)
    assert repr(finer("dog")) == "finer('dog')"
    assert repr(finer(2, 0.6, 2)) == "finer(2, 0.6, 2)"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: finer("dog", -1), "alpha is -1; it must be a number from 0 up"),
        (lambda: finer("dog", float("nan")), "alpha is nan"),
        (lambda: finer("dog", 1, 0), "count is 0; it must be a whole number from 1 up"),
        (lambda: finer("dog", 1, 2.5), "count is 2.5"),
        (lambda: finer(text("a dog")), "it takes one class"),
        (lambda: finer(contrast("dog", "bird")), "it takes one class"),
        (lambda: resolve("dogs", LOGITS, LABELS), "no class is named 'dogs'"),
        (lambda: resolve(finer("dogs"), LOGITS, LABELS), "no class is named 'dogs'"),
        (lambda: resolve([finer(), 1], LOGITS, LABELS), "stands for several classes"),
        (lambda: resolve(finer(1), LOGITS, LABELS, activation="none"), "are none"),
        (lambda: resolve(finer(0), LOGITS[:, :1], Labels(["one"])), "has one output"),
        (lambda: Finer(1).score(LOGITS), "does not know the nearest classes"),
        (lambda: parse_finer("x"), "--finer 'x': give the weight"),
        (lambda: parse_finer("1,2,3"), "--finer '1,2,3'"),
        (lambda: parse_finer("-1"), "--finer '-1'"),
    ],
)
def test_finer_errors(make: Any, words: str) -> None:
    with pytest.raises(TargetError) as error:
        make()
    assert words in str(error.value)


def test_finer_is_no_target_of_a_text_model() -> None:
    model = gradtoken.wrap(seeded(ZOO["open_clip ViT"].build))
    with pytest.raises(TargetError, match="compares pictures with text"):
        gradtoken.explain(model, images_for((64, 64)), finer(1))


def test_gae_of_finer_equals_plain_autograd(model: Model) -> None:
    """The gradient goes through the probabilities, as in the published code."""
    images = inputs(model)
    actual = gradtoken.explain(model, images, finer(3), method="gae").tokens[:, 0].flatten(1)
    for image, tokens in zip(images, actual, strict=True):
        blocks, z = Written(model.module, image).forward()
        order = (z - z[3]).abs().argsort().tolist()
        score = by_hand(z, 3, [i for i in order if i != 3][:3], 1.0, z.softmax(-1))
        grads = torch.autograd.grad(score, [block.attention for block in blocks])
        state = torch.eye(len(blocks[0].entering), dtype=torch.float64)
        for block, grad in zip(blocks, grads, strict=True):
            state = state + (block.attention * grad).clamp_min(0).mean(0) @ state
        torch.testing.assert_close(tokens.double(), state[0, 1:].detach(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("method", ["gradtoken", "grad-cam", "occlusion", "rollout"])
def test_finer_is_a_target_of_every_method(model: Model, method: str) -> None:
    images = inputs(model)
    options = {"window": 4, "stride": 4} if method == "occlusion" else {}
    both = gradtoken.explain(model, images, [finer(3), 3], method=method, **options).tokens
    alone = gradtoken.explain(model, images[1:], finer(3), method=method, **options).tokens
    torch.testing.assert_close(both[1, :1], alone[0], rtol=1e-4, atol=1e-7)
    assert torch.equal(both[:, 0], both[:, 1]) == (method == "rollout")


def test_finer_with_different_numbers_of_targets() -> None:
    model = gradtoken.wrap(tiny_vit(), activation="sigmoid")
    results = list(gradtoken.explain_each(model, images_for((64, 64), 3), finer(above(0.5))))
    plain = list(gradtoken.explain_each(model, images_for((64, 64), 3), above(0.5)))
    assert [r.labels for r in results] == [p.labels for p in plain]
    assert not torch.equal(results[0].scores, plain[0].scores)


def test_finer_on_the_command_line(scene: Path, tmp_path: Path) -> None:
    records = json_lines(
        "explain", scene, "-t", "rocket", "--finer", "0.6,2", "--out", tmp_path / "out"
    )
    kind = records[0]["targets"][0]
    model = gradtoken.load("demo")
    expected = gradtoken.explain(model, scene, finer("rocket", 0.6, 2))
    assert kind["label"] == "rocket"
    assert kind["score"] == pytest.approx(float(expected.scores[0, 0]), rel=1e-4)
    result = invoke("explain", scene, "--finer", "x", "--out", tmp_path / "none")
    assert result.exit_code != 0
    coupled = json_lines("coupling", scene, "--finer", "1", "--method", "gae")
    assert coupled


def test_finer_of_a_data_set(scene: Path, tmp_path: Path) -> None:
    from gradtoken.batch import Job, TargetSpec, read, run

    spec = replace(TargetSpec.parse("rocket,panda"), finer=(1.0, 3))
    assert spec.settings() == {"classes": ("rocket", "panda"), "finer": (1.0, 3)}
    run(str(scene.parent), str(tmp_path / "maps"), Job(targets=spec))
    expected = gradtoken.explain(gradtoken.load("demo"), scene, [finer("rocket"), finer("panda")])
    scores = [row.logit for row in read(str(tmp_path / "maps"))]
    assert scores == pytest.approx(expected.scores[0].tolist(), rel=1e-3)
    labels = gradtoken.load("demo").labels
    with pytest.raises(TargetError, match="outputs of demo are none"):
        spec.check(labels, False, "demo", "none")
    with pytest.raises(TargetError, match="leave it out"):
        replace(spec, classes=None, prompts=("a",)).check(labels, True, "clip")
