"""Scores and probabilities of targets, and the `target` options."""

from __future__ import annotations

import math

import pytest
import torch

from gradtoken import contrast, log_prob
from gradtoken.errors import TargetError
from gradtoken.targets import ClassTarget, LogProb, Targets, resolve
from gradtoken.targets.labels import Labels

NAMES = ["tabby, tabby cat", "Egyptian cat", "dog", "crane", "crane"]
LABELS = Labels(NAMES)
LOGITS = torch.tensor([[1.0, 3.0, 2.0, -1.0, 0.0], [0.5, 0.0, 4.0, 1.0, 2.0]])


def scores(result: Targets) -> torch.Tensor:
    return result.scores(LOGITS[:, None].expand(-1, result.count, -1))


def test_probabilities_of_classes_only() -> None:
    targets = resolve(["dog", log_prob("dog"), contrast(0, 1)], LOGITS, LABELS)
    probabilities = targets.probabilities(LOGITS, "softmax")
    torch.testing.assert_close(probabilities[:, 0], LOGITS.softmax(-1)[:, 2])
    torch.testing.assert_close(probabilities[:, 1], LOGITS.softmax(-1)[:, 2])
    assert probabilities[:, 2].isnan().all()


def test_probabilities_by_activation() -> None:
    each = [[1 / (1 + math.exp(-z)) for z in row] for row in LOGITS.tolist()]
    targets = resolve(["dog", contrast(0, 1)], LOGITS, LABELS, activation="sigmoid")
    assert targets.probabilities(LOGITS, "sigmoid")[:, 0].tolist() == pytest.approx(
        [each[0][2], each[1][2]]
    )
    assert targets.probabilities(LOGITS, "sigmoid")[:, 1].isnan().all()
    classes = resolve([2, 1], LOGITS, LABELS, activation="sigmoid")
    assert classes.probabilities(LOGITS, "sigmoid")[0].tolist() == pytest.approx(
        [each[0][2], each[0][1]]
    )
    assert classes.probabilities(LOGITS, "none").isnan().all()
    assert targets.probabilities(LOGITS, "none").isnan().all()


def test_log_prob_by_activation() -> None:
    targets = resolve([log_prob("dog"), LogProb(2)], LOGITS, LABELS, activation="sigmoid")
    expected = [[-math.log(1 + math.exp(-z[2]))] * 2 for z in LOGITS.tolist()]
    torch.testing.assert_close(scores(targets), torch.tensor(expected))
    assert targets.rows[0][0].to_dict() == {"kind": "log_prob", "id": 2, "activation": "sigmoid"}
    far = torch.tensor([[-200.0, 0, 0, 0, 0]])
    alone = resolve([log_prob(0)], far, LABELS, activation="sigmoid")
    assert alone.scores(far[:, None]).item() == -200
    with pytest.raises(TargetError, match="log_prob needs a probability"):
        resolve(log_prob("dog"), LOGITS, LABELS, activation="none")
    with pytest.raises(TargetError, match="log_prob needs a probability"):
        resolve("dog", LOGITS, LABELS).sharpen("log_prob", LOGITS, "none")
    with pytest.raises(TargetError, match="does not know the model's activation"):
        LogProb(2).score(LOGITS)


def test_sharpen_log_prob_by_activation() -> None:
    targets = resolve(["dog"], LOGITS, LABELS).sharpen("log_prob", LOGITS, "sigmoid")
    expected = [[-math.log(1 + math.exp(-z[2]))] for z in LOGITS.tolist()]
    torch.testing.assert_close(scores(targets), torch.tensor(expected))


def test_scores_rejects_functions_without_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()[:, None]
    with pytest.raises(TargetError, match=r"must return one scalar tensor.* returned \(5,\)"):
        resolve(lambda z: z, LOGITS, LABELS).scores(logits)
    with pytest.raises(TargetError, match="returned float"):
        resolve(lambda z: 1.0, LOGITS, LABELS).scores(logits)
    with pytest.raises(TargetError, match="does not depend on the output"):
        resolve(lambda z: z.detach().sum(), LOGITS, LABELS).scores(logits)


def test_sharpen_rivals() -> None:
    targets = resolve(["dog"], LOGITS, LABELS).sharpen("rivals(2)", LOGITS)
    assert targets.rows[0][0].to_dict() == {
        "kind": "against",
        "id": 2,
        "others": [1, 0],
        "weight": 1.0,
    }
    assert scores(targets).tolist() == [[0.0], [2.5]]
    few = resolve(["dog"], LOGITS, LABELS).sharpen("rivals(50)", LOGITS)
    assert len(few.rows[0][0].others) == 4


def test_sharpen_keeps_other_targets() -> None:
    targets = resolve([contrast(0, 1), 2], LOGITS, LABELS).sharpen("log_prob", LOGITS)
    assert targets.rows[0][0].to_dict()["kind"] == "contrast"
    assert targets.rows[0][1].to_dict() == {"kind": "log_prob", "id": 2}
    plain = resolve([2], LOGITS, LABELS)
    assert plain.sharpen("logit", LOGITS) is plain


def test_targets_slice() -> None:
    rows = [[ClassTarget(0), ClassTarget(1), ClassTarget(2)]] * 2
    assert Targets(rows)[1:].rows[0] == (ClassTarget(1), ClassTarget(2))
