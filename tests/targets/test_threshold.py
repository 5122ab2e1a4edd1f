"""Every class above a probability: as sigmoid_model targets as each image has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import gradtoken
from gradtoken.errors import GradTokenError, TargetError
from gradtoken.models import Model
from gradtoken.targets import above, resolve, resolve_rows, text
from gradtoken.targets.labels import Labels
from tests.conftest import images_for, tiny_vit
from tests.models.zoo import ZOO, seeded

LABELS = Labels(["cat", "dog", "bird, fowl"])
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-3.0, -2.0, -4.0], [0.1, 0.2, 0.3]])


@pytest.fixture(scope="module")
def sigmoid_model() -> Model:
    return gradtoken.wrap(tiny_vit(), activation="sigmoid")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_for((64, 64), 5)


def counts_above(model: Model, images: Tensor, p: float) -> list[int]:
    return (model.module(images).sigmoid() > p).sum(1).tolist()


def test_above_orders_by_probability() -> None:
    rows = resolve_rows(above(0.5), LOGITS, LABELS, activation="sigmoid")
    assert [[t.id for t in row] for row in rows] == [[0, 2], [], [2, 1, 0]]
    shares = LOGITS.softmax(-1)
    rows = resolve_rows(above(0.3), LOGITS, LABELS)
    assert [sorted(t.id for t in row) for row in rows] == [
        [i for i in range(3) if shares[b, i] > 0.3] for b in range(3)
    ]
    said = above(0.5).absence(LOGITS[1], "sigmoid", LABELS)
    assert said == "no class has a probability above 0.5; the largest is 0.119 (dog)."


def test_above_excludes_equal_probability() -> None:
    rows = resolve_rows(above(0.5), torch.zeros(1, 3), LABELS, activation="sigmoid")
    assert rows == [[]]


@pytest.mark.parametrize("value", [1, 1.5, -0.1, float("nan"), "0.5", None, True])
def test_above_rejects_other_values(value: Any) -> None:
    with pytest.raises(TargetError, match=r"a probability is from 0 up to, but not, 1"):
        above(value)


def test_above_rejects_unsupported_models_and_lists(images: Tensor) -> None:
    with pytest.raises(TargetError, match=r"above\(0.5\) needs probabilities"):
        resolve(above(0.5), LOGITS, LABELS, activation="none")
    with pytest.raises(TargetError, match="it is given alone"):
        resolve([above(0.5), 1], LOGITS, LABELS)
    clip = gradtoken.wrap(seeded(ZOO["open_clip ViT"].build))
    with pytest.raises(TargetError, match="give prompts"):
        gradtoken.explain(clip, images, above(0.5))
    assert text("a cat")


def test_explain_each_above_with_different_numbers(sigmoid_model: Model, images: Tensor) -> None:
    counts = counts_above(sigmoid_model, images, 0.6)
    assert len(set(counts)) > 1
    assert min(counts) > 0
    explanations = list(gradtoken.explain_each(sigmoid_model, images, above(0.6)))
    assert [item.tokens.shape[1] for item in explanations] == counts
    for image, item in zip(images, explanations, strict=True):
        alone = gradtoken.explain(sigmoid_model, image, above(0.6))
        assert item.labels == alone.labels
        assert item.targets.count == len(item.labels[0]) == item.scores.shape[1]
        p = sigmoid_model.module(image[None]).detach().sigmoid()[0]
        assert item.probabilities[0].tolist() == pytest.approx(
            sorted((float(v) for v in p if v > 0.6), reverse=True)
        )
        ids = [target.id for target in item.targets.rows[0]]
        named = gradtoken.explain(sigmoid_model, image, ids)
        torch.testing.assert_close(item.tokens, named.tokens)


def test_explain_each_above_runs_one_forward(sigmoid_model: Model, images: Tensor) -> None:
    observed = []
    handle = sigmoid_model.module.patch_embed.register_forward_hook(
        lambda _, a, out: observed.append(len(out))
    )
    list(gradtoken.explain_each(sigmoid_model, images, above(0.6), batch_size=5))
    handle.remove()
    assert observed == [5]


def test_explain_above_rejects_different_numbers(sigmoid_model: Model, images: Tensor) -> None:
    counts = sorted(set(counts_above(sigmoid_model, images, 0.6)))
    words = rf"\({', '.join(map(str, counts))}\), and their maps.*explain_each\(\)"
    with pytest.raises(TargetError, match=words):
        gradtoken.explain(sigmoid_model, images, above(0.6))
    with pytest.raises(TargetError, match=r"different numbers of targets.*explain_each\(\)"):
        gradtoken.explain(sigmoid_model, images, above(0.6), batch_size=1)
    everything = gradtoken.explain(sigmoid_model, images, above(0))
    assert everything.tokens.shape[:2] == (5, 10)


def test_explain_each_above_without_class(sigmoid_model: Model, images: Tensor) -> None:
    p = sigmoid_model.module(images).detach().sigmoid().amax(1)
    least = int(p.argmin())
    between = float(p.sort().values[:2].mean())
    with pytest.raises(TargetError) as caught:
        list(gradtoken.explain_each(sigmoid_model, images, above(between)))
    largest = f"image {least}: no class has a probability above {between:g}; the largest is "
    assert str(caught.value).startswith(f"{largest}{float(p[least]):.3f} (class ")
    with pytest.raises(TargetError, match=f"image {least}: no class"):
        gradtoken.explain(sigmoid_model, images, above(between), batch_size=5)
    reported: dict[int, Exception] = {}
    for size in (1, 5):
        reported.clear()
        explanations = list(
            gradtoken.explain_each(
                sigmoid_model,
                images,
                above(between),
                batch_size=size,
                on_error=reported.__setitem__,
            )
        )
        assert len(explanations) == 4
        assert list(reported) == [least]
        assert "the largest is" in str(reported[least])
    blank = list(
        gradtoken.explain_each(sigmoid_model, images, above(0.99999), on_error=reported.__setitem__)
    )
    assert (blank, sorted(reported)) == ([], [0, 1, 2, 3, 4])


def test_explain_each_lists_of_different_lengths(model: Model, images: Tensor) -> None:
    requested = [[1], [2, 3, 4], [5, 6], [7], [gradtoken.contrast(1, 2), 9]]
    explanations = list(gradtoken.explain_each(model, images, requested, target="logit"))
    for image, row, item in zip(images, requested, explanations, strict=True):
        alone = gradtoken.explain(model, image, row, target="logit")
        torch.testing.assert_close(item.tokens, alone.tokens)
        assert item.labels == alone.labels
    with pytest.raises(TargetError, match=r"different numbers of targets \(1, 2, 3\)"):
        gradtoken.explain(model, images, requested)
    with pytest.raises(TargetError, match="nothing to explain"):
        list(gradtoken.explain_each(model, images, [[1], [], [1], [1], [1]]))


@pytest.mark.parametrize("method", ["gae", "rollout", "cdam", "grad-cam"])
def test_explain_each_above_with_other_methods(
    sigmoid_model: Model, images: Tensor, method: str
) -> None:
    for image, item in zip(
        images,
        gradtoken.explain_each(sigmoid_model, images, above(0.6), method=method),
        strict=True,
    ):
        alone = gradtoken.explain(sigmoid_model, image, above(0.6), method=method)
        torch.testing.assert_close(item.tokens, alone.tokens)


def test_batch_run_above(tmp_path: Path) -> None:
    from gradtoken.batch import Job, TargetSpec, read, run

    (tmp_path / "photos").mkdir()
    for index in range(5):
        scene = gradtoken.datasets.Scenes("test", objects=2)[index]
        scene.image.save(tmp_path / "photos" / f"{index}.png")
    grey = Image.fromarray(np.full((112, 112, 3), 128, np.uint8))
    grey.save(tmp_path / "photos" / "grey.png")
    job = Job(targets=TargetSpec.likely(0.3), batch_size=3)
    summary = run(str(tmp_path / "photos"), str(tmp_path / "out"), job)
    model = gradtoken.load("demo", device="cpu")
    maps = list(read(str(tmp_path / "out")))
    for index in range(5):
        item = [m for m in maps if m.id == f"{index}.png"]
        p = model(model.preprocess(gradtoken.datasets.Scenes("test", objects=2)[index].image)[None])
        expected = sorted((float(v) for v in p.softmax(-1)[0] if v > 0.3), reverse=True)
        assert [m.probability for m in item] == pytest.approx(expected, rel=1e-4)
        assert [m.rank for m in item] == list(range(len(expected)))
    assert summary.errors == 1
    (missing,) = read(str(tmp_path / "out"), errors=True)
    assert missing.id == "grey.png"
    assert missing.error.startswith("no class has a probability above 0.3; the largest is 0.")
    with pytest.raises(TargetError, match=r"above:0.3 needs probabilities"):
        run(
            str(tmp_path / "photos"),
            str(tmp_path / "none"),
            Job(targets=TargetSpec.likely(0.3), activation="none"),
        )


def test_target_spec_above() -> None:
    from gradtoken.batch import TargetSpec

    assert TargetSpec.parse("above:0.25") == TargetSpec.likely(0.25)
    assert TargetSpec.likely(0.25).settings() == {"above": 0.25}
    for words in ("above:", "above:much", "above:1", "above:nan"):
        with pytest.raises(GradTokenError, match="probability"):
            TargetSpec.parse(words)
