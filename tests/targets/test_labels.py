"""Class names from lists, id2label and label2id, and their look-up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import gradtoken
from gradtoken.errors import ModelError
from gradtoken.targets.labels import Labels
from tests.conftest import images_for, tiny_vit
from tests.models.zoo import ZOO, seeded

NAMES = ["cat", "dog", "crane"]


@pytest.mark.parametrize(
    "value",
    [
        NAMES,
        tuple(NAMES),
        np.array(NAMES),
        {0: "cat", 1: "dog", 2: "crane"},
        {2: "crane", 0: "cat", 1: "dog"},
        {"0": "cat", "1": "dog", "2": "crane"},
        {np.int64(0): "cat", np.int64(1): "dog", np.int64(2): "crane"},
        {"crane": 2, "cat": 0, "dog": 1},
    ],
)
def test_from_names_lists_and_maps(value: Any) -> None:
    assert list(Labels.from_names(value, 3, "mine")) == NAMES


def test_from_names_digits() -> None:
    assert list(Labels.from_names({0: "1", 1: "0"}, 2, "mine")) == ["1", "0"]
    assert list(Labels.from_names({"0": "1", "1": "0"}, 2, "mine")) == ["1", "0"]
    assert list(Labels.from_names({"1": 0, "0": 1}, 2, "mine")) == ["1", "0"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({0: "cat", 2: "crane"}, r"no name for class 1 \(1 missing\): mine has 3 classes, 0 to 2"),
        ({1: "cat", 2: "dog", 3: "crane"}, r"no name for class 0 \(1 missing\)"),
        ({0: "cat", 1: "dog", 2: "crane", 3: "more"}, "has an id 3"),
        ({"cat": 0, "kitty": 0, "dog": 1, "crane": 2}, "names a class twice"),
        ({"cat": "0", "dog": "1", "crane": "2"}, "neither from ids to names nor from names to ids"),
        ({0: 5, 1: 6, 2: 7}, "neither from ids to names"),
        ({True: "cat", False: "dog", 2: "crane"}, "neither from ids to names"),
        ({}, r"no name for class 0 \(3 missing\)"),
        ({"cat", "dog", "crane"}, "the labels are a set, which is no list of names"),
        (frozenset(NAMES), "the labels are a frozenset"),
        ((name for name in NAMES), "the labels are a generator"),
        ("cat", "the labels are a str"),
        (b"cat", "the labels are a bytes"),
        ({0: "cat"}.values(), "the labels are a dict_values"),
        (np.array([NAMES]), "the labels are a ndarray"),
        (3, "the labels are a int"),
        (["cat", "dog"], "2 labels were given for the 3 classes of mine"),
    ],
)
def test_from_names_rejects_incomplete_names(value: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Labels.from_names(value, 3, "mine")


def test_wrap_with_id2label_of_any_module() -> None:
    names = {index: f"n{index}" for index in range(10)}
    model = gradtoken.wrap(tiny_vit(), labels=names)
    assert gradtoken.explain(model, images_for((64, 64)), [0, 7]).labels == [["n0", "n7"]] * 2
    hf = seeded(ZOO["ViTForImageClassification"].build)
    assert list(gradtoken.wrap(hf, labels={"a": 1, "b": 0, "c": 2, "d": 4, "e": 3}).labels) == [
        *"baced".replace(" ", "")
    ]
    own = torch.nn.Sequential(tiny_vit())
    result = gradtoken.wrap(own, preprocess=model.preprocess, labels=names)
    assert list(result.labels) == list(names.values())


def test_wrap_rejects_labels_of_prompt_model() -> None:
    clip = seeded(ZOO["open_clip ViT"].build)
    with pytest.raises(ModelError, match="has no classes to label"):
        gradtoken.wrap(clip, labels=["a cat"])


def test_find_ignores_case_and_separators() -> None:
    labels = Labels(["tabby, tabby cat", "Egyptian cat", "dog", "crane", "crane"])
    for name in ("tabby", "Tabby Cat", "tabby_cat", "tabby-cat", "tabby, tabby cat"):
        assert labels.find(name) == 0
