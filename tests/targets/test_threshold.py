"""Every class above a probability: as many targets as each image has."""

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
def many() -> Model:
    return gradtoken.wrap(tiny_vit(), activation="sigmoid")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_for((64, 64), 5)


def counts_above(model: Model, images: Tensor, p: float) -> list[int]:
    return (model.module(images).sigmoid() > p).sum(1).tolist()


def test_the_likeliest_come_first() -> None:
    rows = resolve_rows(above(0.5), LOGITS, LABELS, activation="sigmoid")
    assert [[t.id for t in row] for row in rows] == [[0, 2], [], [2, 1, 0]]
    shares = LOGITS.softmax(-1)
    rows = resolve_rows(above(0.3), LOGITS, LABELS)
    assert [sorted(t.id for t in row) for row in rows] == [
        [i for i in range(3) if shares[b, i] > 0.3] for b in range(3)
    ]
    said = above(0.5).none(LOGITS[1], "sigmoid", LABELS)
    assert said == "no class has a probability above 0.5; the largest is 0.119 (dog)."


def test_a_probability_that_is_reached_is_not_above() -> None:
    rows = resolve_rows(above(0.5), torch.zeros(1, 3), LABELS, activation="sigmoid")
    assert rows == [[]]


@pytest.mark.parametrize("given", [1, 1.5, -0.1, float("nan"), "0.5", None, True])
def test_what_is_no_probability(given: Any) -> None:
    with pytest.raises(TargetError, match=r"a probability is from 0 up to, but not, 1"):
        above(given)


def test_where_it_cannot_be_asked(images: Tensor) -> None:
    with pytest.raises(TargetError, match=r"above\(0.5\) needs probabilities"):
        resolve(above(0.5), LOGITS, LABELS, activation="none")
    with pytest.raises(TargetError, match="it is given alone"):
        resolve([above(0.5), 1], LOGITS, LABELS)
    clip = gradtoken.wrap(seeded(ZOO["open_clip ViT"].build))
    with pytest.raises(TargetError, match="give prompts"):
        gradtoken.explain(clip, images, above(0.5))
    assert text("a cat")


def test_each_image_has_its_own_number(many: Model, images: Tensor) -> None:
    counts = counts_above(many, images, 0.6)
    assert len(set(counts)) > 2
    assert min(counts) > 0
    found = list(gradtoken.explain_each(many, images, above(0.6)))
    assert [one.tokens.shape[1] for one in found] == counts
    for image, one in zip(images, found, strict=True):
        alone = gradtoken.explain(many, image, above(0.6))
        assert one.labels == alone.labels
        assert one.targets.count == len(one.labels[0]) == one.scores.shape[1]
        p = many.module(image[None]).detach().sigmoid()[0]
        assert one.probabilities[0].tolist() == pytest.approx(
            sorted((float(v) for v in p if v > 0.6), reverse=True)
        )
        ids = [target.id for target in one.targets.rows[0]]
        named = gradtoken.explain(many, image, ids)
        torch.testing.assert_close(one.tokens, named.tokens)


def test_one_forward_for_a_batch(many: Model, images: Tensor) -> None:
    seen = []
    handle = many.module.patch_embed.register_forward_hook(lambda _, a, out: seen.append(len(out)))
    list(gradtoken.explain_each(many, images, above(0.6), batch_size=5))
    handle.remove()
    assert seen == [5]


def test_several_images_as_one_result(many: Model, images: Tensor) -> None:
    counts = sorted(set(counts_above(many, images, 0.6)))
    words = rf"\({', '.join(map(str, counts))}\), and their maps.*explain_each\(\)"
    with pytest.raises(TargetError, match=words):
        gradtoken.explain(many, images, above(0.6))
    with pytest.raises(TargetError, match=r"different numbers of targets.*explain_each\(\)"):
        gradtoken.explain(many, images, above(0.6), batch_size=1)
    everything = gradtoken.explain(many, images, above(0))
    assert everything.tokens.shape[:2] == (5, 10)


def test_an_image_without_such_a_class(many: Model, images: Tensor) -> None:
    p = many.module(images).detach().sigmoid().amax(1)
    least = int(p.argmin())
    between = float(p.sort().values[:2].mean())
    with pytest.raises(TargetError) as caught:
        list(gradtoken.explain_each(many, images, above(between)))
    largest = f"image {least}: no class has a probability above {between:g}; the largest is "
    assert str(caught.value).startswith(f"{largest}{float(p[least]):.3f} (class ")
    with pytest.raises(TargetError, match=f"image {least}: no class"):
        gradtoken.explain(many, images, above(between), batch_size=5)
    told: dict[int, Exception] = {}
    for size in (1, 5):
        told.clear()
        found = list(
            gradtoken.explain_each(
                many, images, above(between), batch_size=size, on_error=told.__setitem__
            )
        )
        assert len(found) == 4
        assert list(told) == [least]
        assert "the largest is" in str(told[least])
    blank = list(gradtoken.explain_each(many, images, above(0.99999), on_error=told.__setitem__))
    assert (blank, sorted(told)) == ([], [0, 1, 2, 3, 4])


def test_lists_of_several_lengths(model: Model, images: Tensor) -> None:
    asked = [[1], [2, 3, 4], [5, 6], [7], [gradtoken.contrast(1, 2), 9]]
    found = list(gradtoken.explain_each(model, images, asked, target="logit"))
    for image, row, one in zip(images, asked, found, strict=True):
        alone = gradtoken.explain(model, image, row, target="logit")
        torch.testing.assert_close(one.tokens, alone.tokens)
        assert one.labels == alone.labels
    with pytest.raises(TargetError, match=r"different numbers of targets \(1, 2, 3\)"):
        gradtoken.explain(model, images, asked)
    with pytest.raises(TargetError, match="nothing to explain"):
        list(gradtoken.explain_each(model, images, [[1], [], [1], [1], [1]]))


@pytest.mark.parametrize("method", ["gae", "rollout", "cdam", "grad-cam"])
def test_other_methods_with_several_numbers(many: Model, images: Tensor, method: str) -> None:
    for image, one in zip(
        images, gradtoken.explain_each(many, images, above(0.6), method=method), strict=True
    ):
        alone = gradtoken.explain(many, image, above(0.6), method=method)
        torch.testing.assert_close(one.tokens, alone.tokens)


def test_batches_and_their_rows(tmp_path: Path) -> None:
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
        one = [m for m in maps if m.id == f"{index}.png"]
        p = model(model.preprocess(gradtoken.datasets.Scenes("test", objects=2)[index].image)[None])
        expected = sorted((float(v) for v in p.softmax(-1)[0] if v > 0.3), reverse=True)
        assert [m.probability for m in one] == pytest.approx(expected, rel=1e-4)
        assert [m.rank for m in one] == list(range(len(expected)))
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


def test_what_batches_are_asked() -> None:
    from gradtoken.batch import TargetSpec

    assert TargetSpec.parse("above:0.25") == TargetSpec.likely(0.25)
    assert TargetSpec.likely(0.25).settings() == {"above": 0.25}
    for words in ("above:", "above:much", "above:1", "above:nan"):
        with pytest.raises(GradTokenError, match="probability"):
            TargetSpec.parse(words)
