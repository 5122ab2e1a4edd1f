"""Requested targets, and the errors for wrong ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gradtoken import contrast, log_prob
from gradtoken.errors import TargetError
from gradtoken.targets import ClassTarget, Targets, resolve
from gradtoken.targets.labels import Labels

NAMES = ["tabby, tabby cat", "Egyptian cat", "dog", "crane", "crane"]
LABELS = Labels(NAMES)
LOGITS = torch.tensor([[1.0, 3.0, 2.0, -1.0, 0.0], [0.5, 0.0, 4.0, 1.0, 2.0]])


def scores(result: Targets) -> torch.Tensor:
    return result.scores(LOGITS[:, None].expand(-1, result.count, -1))


def test_resolve_predicted_classes_by_default() -> None:
    assert resolve(None, LOGITS, LABELS).labels(LABELS) == [["Egyptian cat"], ["dog"]]
    targets = resolve(None, LOGITS, LABELS, top_k=2)
    assert targets.labels(LABELS) == [["Egyptian cat", "dog"], ["dog", "crane"]]
    assert scores(targets).tolist() == [[3.0, 2.0], [4.0, 2.0]]


@pytest.mark.parametrize(
    "value",
    [
        2,
        "dog",
        "DOG",
        "2",
        np.int64(2),
        [torch.tensor(2)],
        [np.array(2)],
        torch.tensor(2),
        [2],
        ["dog"],
        torch.tensor([2]),
        np.array([2]),
        (2,),
    ],
)
def test_resolve_single_class(value: object) -> None:
    assert scores(resolve(value, LOGITS, LABELS)).tolist() == [[2.0], [4.0]]


def test_resolve_list_per_image() -> None:
    targets = resolve([["dog", 0], [4, "egyptian cat"]], LOGITS, LABELS)
    assert scores(targets).tolist() == [[2.0, 1.0], [2.0, 0.0]]
    assert scores(resolve(np.array([[0], [1]]), LOGITS, LABELS)).tolist() == [[1.0], [0.0]]


def test_resolve_contrast_log_prob_and_function() -> None:
    targets = resolve(
        [contrast("dog", 0), log_prob("dog"), lambda z: z.square().sum()], LOGITS, LABELS
    )
    expected = [
        [z[2] - z[0], math.log(math.exp(z[2]) / sum(map(math.exp, z))), sum(v * v for v in z)]
        for z in LOGITS.tolist()
    ]
    torch.testing.assert_close(scores(targets), torch.tensor(expected))
    assert targets.labels(LABELS)[0][0] == "dog vs tabby, tabby cat"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (5, "class id 5 is out of range; this model has 5 classes, 0 to 4"),
        (-1, "class id -1 is out of range"),
        ("99", "class id 99 is out of range"),
        ("tabbi", "no class is named 'tabbi'; did you mean 'tabby'"),
        ("zzzzqqqq", "model.labels lists the names"),
        ("crane", "'crane' names several classes: 3, 4; use the id"),
        ([], "nothing to explain"),
        ([[1], [1, 2]], "different numbers of targets (1, 2)"),
        ([[1]], "1 lists of targets were given for 2 images"),
        ([[1], 2], "mix lists and single targets"),
        (1.5, "1.5 is no class"),
        (True, "True is no class"),
        (ClassTarget(7), "class id 7 is out of range"),
        (ClassTarget(-1), "class id -1 is out of range"),
        ([None], "None is no target"),
        (contrast(1.0, 2), "1.0 is no class"),
        (contrast(True, 2), "True is no class"),
        ([torch.tensor(1.5)], "1.5 is no class"),
        (contrast("dog", "kat"), "no class is named 'kat'"),
    ],
)
def test_resolve_rejects_bad_targets(argument: object, words: str) -> None:
    with pytest.raises(TargetError) as caught:
        resolve(argument, LOGITS, LABELS)
    assert words in str(caught.value)


@pytest.mark.parametrize("top_k", [0, 6, 2.0, "2", True, None])
def test_resolve_rejects_top_k_out_of_range(top_k: int) -> None:
    with pytest.raises(TargetError, match="use 1 to 5"):
        resolve(None, LOGITS, LABELS, top_k=top_k)
