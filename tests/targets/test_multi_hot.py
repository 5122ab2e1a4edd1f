"""Multi-hot rows mean the classes that are set, and are never read as ids 0 and 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import gradtoken
from gradtoken.batch.target_spec import TargetSpec
from gradtoken.errors import TargetError
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.targets.labels import Labels

LABELS = Labels.numbered(10)
LOGITS = torch.arange(20.0).view(2, 10)
ROWS = [[0, 1, 0, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 1, 0, 0, 0, 0, 0, 0]]


def ids(value: Any, logits: torch.Tensor = LOGITS) -> list[list[int]]:
    labels = Labels.numbered(logits.shape[-1])
    return [[c for t in row for c in t.classes()] for row in resolve(value, logits, labels).rows]


@pytest.mark.parametrize(
    "kind",
    [
        lambda rows: torch.tensor(rows).bool(),
        lambda rows: torch.tensor(rows).float(),
        lambda rows: torch.tensor(rows).to(torch.bfloat16),
        lambda rows: np.array(rows, dtype=bool),
        lambda rows: np.array(rows, dtype=np.float64),
        lambda rows: [torch.tensor(row).bool() for row in rows],
        lambda rows: torch.tensor(rows).bool().tolist(),
        lambda rows: torch.tensor(rows).float().tolist(),
    ],
)
def test_row_of_targets_bool_and_float_marks(kind: Any) -> None:
    assert ids(kind(ROWS)) == [[1, 9], [0, 3]]
    assert ids(kind(ROWS)[0]) == [[1, 9], [1, 9]]


def test_row_of_targets_one_and_two_classes() -> None:
    two, item = torch.zeros(2, 2), torch.zeros(2, 1)
    assert ids(torch.tensor([[False, True], [True, False]]), two) == [[1], [0]]
    assert ids(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), two) == [[1], [0]]
    assert ids(torch.ones(2, 1), item) == [[0], [0]]
    assert ids(torch.tensor([[1, 0], [0, 1]]), two) == [[1, 0], [0, 1]]  # integers are ids


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(ROWS),
        np.array(ROWS, dtype=np.uint8),
        ROWS,
        ROWS[0],
        torch.tensor(ROWS[0]),
        np.array(ROWS[0]),
        [3, 3, 1, 0, 0, 2, 5, 7, 8, 9],
        torch.zeros(2, 10, dtype=torch.long),
    ],
)
def test_check_integer_ids_rejects_marks(value: Any) -> None:
    with pytest.raises(TargetError, match=r"integers are read as class ids.*nonzero\(\)"):
        ids(value)


def test_check_integer_ids_accepts_ids_of_all_classes() -> None:
    order = torch.tensor([[3, 1, 2, 0, 9, 8, 7, 6, 5, 4], list(range(10))])
    assert ids(order) == order.tolist()
    assert ids(list(range(10))) == [list(range(10))] * 2
    assert ids([0, 1, 0]) == [[0, 1, 0]] * 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.tensor([[True, False, True]] * 2), r"3 targets of bool are neither class ids"),
        (torch.tensor([[1.0, 2.0]] * 2), r"2 targets of float32 are neither class ids"),
        (np.full((2, 10), 0.5), r"10 targets of float64 are neither class ids.*10 classes"),
        (torch.zeros(2, 10), "no class set"),
        (torch.zeros(10, dtype=torch.bool), "no class set"),
        (torch.tensor([[1, 1, 0], [1, 0, 0]]).bool(), "3 targets of bool"),
        (torch.ones(2, 2, 10).bool(), r"shape \(2, 2, 10\) are no list for each image"),
        (torch.tensor(ROWS * 2).bool(), "4 lists of targets were given for 2 images"),
        ([True, False], "True is no class"),
        (torch.tensor(1.0), "1.0 is no class"),
        (torch.zeros(2, 10, device="meta"), "cannot be read"),
        (torch.zeros(2, 10).to_sparse(), "cannot be read"),
    ],
)
def test_row_of_targets_rejects_other_rows(value: Any, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        ids(value)


def test_resolve_rejects_unequal_numbers_of_marks() -> None:
    ragged = torch.tensor(ROWS).bool()
    ragged[0, 5] = True
    with pytest.raises(TargetError, match=r"different numbers of targets \(2, 3\)"):
        ids(ragged)


def test_explain_with_marks(model: Model, batch: torch.Tensor) -> None:
    explanation = gradtoken.explain(model, batch, torch.tensor(ROWS).bool())
    expected = gradtoken.explain(model, batch, [[1, 9], [0, 3]])
    assert explanation.labels == [["class 1", "class 9"], ["class 0", "class 3"]]
    assert torch.equal(explanation.tokens, expected.tokens)
    by_one = [
        gradtoken.explain(model, x, torch.tensor(r).bool())
        for x, r in zip(batch, ROWS, strict=True)
    ]
    assert [item.labels[0] for item in by_one] == explanation.labels


def test_target_spec_with_column_of_marks(model: Model) -> None:
    requested = TargetSpec(column="y")
    assert requested.own(
        "[false, true, false, false, false, false, false, false, false, true]", LABELS, False
    ) == [1, 9]
    assert requested.own(str([float(v) for v in ROWS[1]]), LABELS, False) == [0, 3]
    assert requested.own("[1, 9]", LABELS, False) == [1, 9]
    with pytest.raises(TargetError, match="integers are read as class ids"):
        requested.own(str(ROWS[0]), LABELS, False)
