"""What can be asked for, and what is said when it cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gradtoken import contrast, log_prob
from gradtoken.errors import TargetError
from gradtoken.targets import ClassTarget, LogProb, Targets, resolve
from gradtoken.targets.labels import Labels

NAMES = ["tabby, tabby cat", "Egyptian cat", "dog", "crane", "crane"]
LABELS = Labels(NAMES)
LOGITS = torch.tensor([[1.0, 3.0, 2.0, -1.0, 0.0], [0.5, 0.0, 4.0, 1.0, 2.0]])


def scores(found: Targets) -> torch.Tensor:
    return found.scores(LOGITS[:, None].expand(-1, found.count, -1))


def test_predicted_classes_by_default() -> None:
    assert resolve(None, LOGITS, LABELS).labels(LABELS) == [["Egyptian cat"], ["dog"]]
    found = resolve(None, LOGITS, LABELS, top_k=2)
    assert found.labels(LABELS) == [["Egyptian cat", "dog"], ["dog", "crane"]]
    assert scores(found).tolist() == [[3.0, 2.0], [4.0, 2.0]]


@pytest.mark.parametrize(
    "given",
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
def test_one_class_for_all_images(given: object) -> None:
    assert scores(resolve(given, LOGITS, LABELS)).tolist() == [[2.0], [4.0]]


def test_synonyms_case_and_separators() -> None:
    for name in ("tabby", "Tabby Cat", "tabby_cat", "tabby-cat", "tabby, tabby cat"):
        assert LABELS.find(name) == 0


def test_one_list_per_image() -> None:
    found = resolve([["dog", 0], [4, "egyptian cat"]], LOGITS, LABELS)
    assert scores(found).tolist() == [[2.0, 1.0], [2.0, 0.0]]
    assert scores(resolve(np.array([[0], [1]]), LOGITS, LABELS)).tolist() == [[1.0], [0.0]]


def test_contrast_log_prob_and_functions() -> None:
    found = resolve(
        [contrast("dog", 0), log_prob("dog"), lambda z: z.square().sum()], LOGITS, LABELS
    )
    expected = [
        [z[2] - z[0], math.log(math.exp(z[2]) / sum(map(math.exp, z))), sum(v * v for v in z)]
        for z in LOGITS.tolist()
    ]
    torch.testing.assert_close(scores(found), torch.tensor(expected))
    assert found.labels(LABELS)[0][0] == "dog vs tabby, tabby cat"


def test_probabilities_are_of_classes_only() -> None:
    found = resolve(["dog", log_prob("dog"), contrast(0, 1)], LOGITS, LABELS)
    probabilities = found.probabilities(LOGITS, "softmax")
    torch.testing.assert_close(probabilities[:, 0], LOGITS.softmax(-1)[:, 2])
    torch.testing.assert_close(probabilities[:, 1], LOGITS.softmax(-1)[:, 2])
    assert probabilities[:, 2].isnan().all()


def test_probabilities_by_the_activation() -> None:
    each = [[1 / (1 + math.exp(-z)) for z in row] for row in LOGITS.tolist()]
    found = resolve(["dog", contrast(0, 1)], LOGITS, LABELS, activation="sigmoid")
    assert found.probabilities(LOGITS, "sigmoid")[:, 0].tolist() == pytest.approx(
        [each[0][2], each[1][2]]
    )
    assert found.probabilities(LOGITS, "sigmoid")[:, 1].isnan().all()
    classes = resolve([2, 1], LOGITS, LABELS, activation="sigmoid")
    assert classes.probabilities(LOGITS, "sigmoid")[0].tolist() == pytest.approx(
        [each[0][2], each[0][1]]
    )
    assert classes.probabilities(LOGITS, "none").isnan().all()
    assert found.probabilities(LOGITS, "none").isnan().all()


def test_log_probabilities_by_the_activation() -> None:
    found = resolve([log_prob("dog"), LogProb(2)], LOGITS, LABELS, activation="sigmoid")
    expected = [[-math.log(1 + math.exp(-z[2]))] * 2 for z in LOGITS.tolist()]
    torch.testing.assert_close(scores(found), torch.tensor(expected))
    assert found.rows[0][0].to_dict() == {"kind": "log_prob", "id": 2, "activation": "sigmoid"}
    far = torch.tensor([[-200.0, 0, 0, 0, 0]])
    alone = resolve([log_prob(0)], far, LABELS, activation="sigmoid")
    assert alone.scores(far[:, None]).item() == -200
    with pytest.raises(TargetError, match="log_prob needs a probability"):
        resolve(log_prob("dog"), LOGITS, LABELS, activation="none")
    with pytest.raises(TargetError, match="log_prob needs a probability"):
        resolve("dog", LOGITS, LABELS).sharpen("log_prob", LOGITS, "none")
    with pytest.raises(TargetError, match="does not know the model's activation"):
        LogProb(2).score(LOGITS)


def test_sharpening_to_log_probabilities_by_the_activation() -> None:
    found = resolve(["dog"], LOGITS, LABELS).sharpen("log_prob", LOGITS, "sigmoid")
    expected = [[-math.log(1 + math.exp(-z[2]))] for z in LOGITS.tolist()]
    torch.testing.assert_close(scores(found), torch.tensor(expected))


@pytest.mark.parametrize(
    ("given", "words"),
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
def test_bad_targets_are_refused(given: object, words: str) -> None:
    with pytest.raises(TargetError) as caught:
        resolve(given, LOGITS, LABELS)
    assert words in str(caught.value)


@pytest.mark.parametrize("top_k", [0, 6, 2.0, "2", True, None])
def test_top_k_out_of_range(top_k: int) -> None:
    with pytest.raises(TargetError, match="use 1 to 5"):
        resolve(None, LOGITS, LABELS, top_k=top_k)


def test_functions_must_return_a_differentiable_scalar() -> None:
    logits = LOGITS.clone().requires_grad_()[:, None]
    with pytest.raises(TargetError, match=r"must return one scalar tensor.* returned \(5,\)"):
        resolve(lambda z: z, LOGITS, LABELS).scores(logits)
    with pytest.raises(TargetError, match="returned float"):
        resolve(lambda z: 1.0, LOGITS, LABELS).scores(logits)
    with pytest.raises(TargetError, match="does not depend on the output"):
        resolve(lambda z: z.detach().sum(), LOGITS, LABELS).scores(logits)


def test_rivals_are_the_strongest_others() -> None:
    found = resolve(["dog"], LOGITS, LABELS).sharpen("rivals(2)", LOGITS)
    assert found.rows[0][0].to_dict() == {
        "kind": "against",
        "id": 2,
        "others": [1, 0],
        "weight": 1.0,
    }
    assert scores(found).tolist() == [[0.0], [2.5]]
    few = resolve(["dog"], LOGITS, LABELS).sharpen("rivals(50)", LOGITS)
    assert len(few.rows[0][0].others) == 4


def test_sharpening_leaves_other_targets_alone() -> None:
    found = resolve([contrast(0, 1), 2], LOGITS, LABELS).sharpen("log_prob", LOGITS)
    assert found.rows[0][0].to_dict()["kind"] == "contrast"
    assert found.rows[0][1].to_dict() == {"kind": "log_prob", "id": 2}
    plain = resolve([2], LOGITS, LABELS)
    assert plain.sharpen("logit", LOGITS) is plain


def test_slices_of_targets() -> None:
    rows = [[ClassTarget(0), ClassTarget(1), ClassTarget(2)]] * 2
    assert Targets(rows)[1:].rows[0] == (ClassTarget(1), ClassTarget(2))
