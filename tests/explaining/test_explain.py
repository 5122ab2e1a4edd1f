"""`explain` with every type of input, and its result."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import gradtoken
from gradtoken.attribution import make_method
from gradtoken.errors import ImageError, MethodError, ModelError
from gradtoken.models import Model
from tests.conftest import images_for, tiny_vit


def test_explain_shapes_and_values(model: Model, batch: Tensor) -> None:
    explanation = gradtoken.explain(model, batch, [3, gradtoken.contrast(1, 2)])
    assert explanation.tokens.shape == (2, 2, 8, 8)
    assert explanation.relevance.shape == (2, 2, 64, 64)
    assert explanation.labels == [["class 3", "class 1 vs class 2"]] * 2
    logits = model(batch)
    torch.testing.assert_close(
        explanation.scores, torch.stack([logits[:, 3], logits[:, 1] - logits[:, 2]], 1)
    )
    torch.testing.assert_close(explanation.probabilities[:, 0], logits.softmax(-1)[:, 3])
    assert explanation.probabilities[:, 1].isnan().all()
    assert (explanation.tokens < 0).any()
    assert (explanation.tokens > 0).any()


def test_explain_equal_for_all_input_types(
    model: Model, picture: Image.Image, tmp_path: Path
) -> None:
    path = tmp_path / "p.png"
    picture.save(path)
    expected = gradtoken.explain(model, picture, 1)
    for value in (path, str(path), np.asarray(picture), [picture], model.preprocess(picture)):
        assert torch.equal(gradtoken.explain(model, value, 1).tokens, expected.tokens)
    mixed = gradtoken.explain(model, [path, picture, model.preprocess(picture)], 1)
    torch.testing.assert_close(mixed.tokens, expected.tokens.expand(3, -1, -1, -1))


def test_explain_batch_equals_images_individually(model: Model, batch: Tensor) -> None:
    together = gradtoken.explain(model, batch, [[1, 2], [3, 4]])
    for index, targets in enumerate([[1, 2], [3, 4]]):
        alone = gradtoken.explain(model, batch[index], targets)
        torch.testing.assert_close(together[index].tokens, alone.tokens)
        assert together[index].labels == alone.labels
    assert len(list(together)) == 2
    assert torch.equal(together[-1].tokens, together[1].tokens)
    with pytest.raises(IndexError):
        together[2]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "list of images is empty"),
        (None, "cannot read an image from NoneType"),
        (torch.zeros(0, 3, 64, 64), "batch is empty"),
        (torch.zeros(1, 4, 64, 64), "not a preprocessed batch"),
        (torch.full((1, 3, 64, 64), torch.nan), "NaN or infinite"),
        ("missing.png", "does not exist"),
        ([torch.zeros(3, 64, 64), torch.zeros(3, 32, 32)], "different shapes"),
    ],
)
def test_explain_rejects_bad_images(model: Model, images: object, words: str) -> None:
    with pytest.raises(ImageError) as caught:
        gradtoken.explain(model, images, 1)
    assert words in str(caught.value)


def test_explain_rejects_wrong_input_size(model: Model) -> None:
    with pytest.raises(ModelError, match=r"cannot run on a batch of shape \(1, 3, 32, 32\)"):
        gradtoken.explain(model, torch.zeros(1, 3, 32, 32), 1)


def test_explain_method_by_name_class_or_instance(model: Model, batch: Tensor) -> None:
    by_name = gradtoken.explain(model, batch, 1, method="gradtoken", beta=1.0)
    made = gradtoken.explain(model, batch, 1, method=make_method("gradtoken", beta=1.0))
    assert torch.equal(by_name.tokens, made.tokens)
    assert set(gradtoken.methods()) >= {"gradtoken", "raw-attention", "rollout"}
    with pytest.raises(
        MethodError, match="no method is named 'gradtokn'; did you mean 'gradtoken'"
    ):
        gradtoken.explain(model, batch, 1, method="gradtokn")
    with pytest.raises(MethodError, match="rollout has no option 'beta'; it has none"):
        gradtoken.explain(model, batch, 1, method="rollout", beta=1.0)
    kind = gradtoken.methods()["rollout"]
    assert gradtoken.explain(model, batch, 1, method=kind).about["method"]["name"] == "rollout"
    with pytest.raises(MethodError, match="no method is named None"):
        gradtoken.explain(model, batch, 1, method=None)
    with pytest.raises(MethodError, match="options go with a method's name"):
        gradtoken.explain(model, batch, 1, method=make_method("rollout"), beta=1.0)


def test_explain_rejects_relevance_not_finite(model: Model, batch: Tensor) -> None:
    with pytest.raises(MethodError, match="NaN or infinite relevance"):
        gradtoken.explain(model, batch, lambda logits: logits[0] * torch.nan)


def test_explain_with_copied_and_pickled_model(batch: Tensor) -> None:
    model = gradtoken.wrap(tiny_vit())
    expected = gradtoken.explain(model, batch, 1).tokens
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(gradtoken.explain(other, batch, 1).tokens, expected)


def test_explain_rejects_module(batch: Tensor) -> None:
    with pytest.raises(ModelError, match=r"needs a Model, it got VisionTransformer.*wrap"):
        gradtoken.explain(tiny_vit(), batch)


def test_explain_dynamic_image_size() -> None:
    model = gradtoken.wrap(tiny_vit(dynamic_img_size=True))
    explanation = gradtoken.explain(model, images_for((48, 96)), [1, 2])
    assert explanation.tokens.shape == (2, 2, 6, 12)
