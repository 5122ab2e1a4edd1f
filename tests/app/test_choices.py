"""What is offered, searched for and ticked."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from gradtoken.app.choices import (
    OFFERED,
    called,
    choices,
    percent,
    read_prompts,
    search,
    targets,
    ticked_at_first,
)
from gradtoken.app.limits import Limits
from gradtoken.errors import TargetError
from gradtoken.targets import contrast, resolve, text
from gradtoken.targets.labels import Labels

NAMES = ["tabby, tabby cat", "tiger cat", "Persian cat", "tiger shark", "sea lion"]
CHANCES = [0.5, 0.05, 0.3, 0.1, 0.0001]
MANY = Labels([f"thing {index}" for index in range(50)])


def test_choices_are_likeliest_first_then_ticked() -> None:
    assert [index for _, index in choices(NAMES, CHANCES)] == [0, 2, 3, 1, 4]
    assert choices(NAMES, CHANCES)[0] == ("tabby · 50.0%", 0)
    assert choices(["a cat, asleep"], [0.5], whole=True) == [("a cat, asleep · 50.0%", 0)]
    many = choices(list(MANY), [1 / 50] * 50, ticked=[40, 3])
    assert [index for _, index in many] == [*range(OFFERED), 40]
    assert [index for _, index in choices(NAMES, CHANCES, [4], "tiger")] == [3, 1, 4]


def test_choices_without_probabilities_are_names() -> None:
    unknown = [math.nan] * 5
    assert choices(NAMES, unknown)[1] == ("tiger cat", 1)
    assert ticked_at_first(unknown) == [0]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("TIGER", [1, 3]),
        ("cat", [0, 1, 2]),
        ("cat tiger", [1]),
        ("tabby cat", [0]),
        ("4", [4]),
        ("dog", []),
    ],
)
def test_search_matches_words_and_ids(query: str, found: list[int]) -> None:
    assert search(NAMES, query) == found


def test_ticked_at_first_are_likely_classes() -> None:
    assert ticked_at_first(CHANCES) == [0, 2, 3]
    assert ticked_at_first([0.02, 0.03, 0.01]) == [1]
    assert ticked_at_first([0.25] * 4) == [0, 1, 2]


def test_read_prompts_checks_count_and_length() -> None:
    assert read_prompts(" a cat \n\na dog\na cat\n", Limits()) == ("a cat", "a dog")
    for written, words in (
        (" \n ", "there is no prompt; write one"),
        ("\n".join(map(str, range(17))), "17 prompts.* at most 16"),
        ("a" * 301, "of 301 letters"),
    ):
        with pytest.raises(TargetError, match=words):
            read_prompts(written, Limits())


def test_targets_of_ticked_and_contrast() -> None:
    few = Limits(targets=3)
    assert targets([3, 1], None, None, labels=MANY, prompts=(), limits=few) == (3, 1)
    assert targets([3], 1, None, labels=MANY, prompts=(), limits=few) == (3,)
    assert targets([], 1, 2, labels=MANY, prompts=(), limits=few) == (contrast(1, 2),)
    cat, dog = text("a cat", "a dog")
    found = targets([1], 0, 1, labels=MANY, prompts=("a cat", "a dog"), limits=few)
    assert found == (dog, contrast(cat, dog))
    for ticked, a, b, words in (
        ([0, 1], 2, 2, "A and B are the same class"),
        ([0, 1, 2], 3, 4, "4 maps are asked for, above the limit of 3"),
        ([50], None, None, "50 is not in the list"),
        (["0"], None, None, "'0' is not in the list"),
        ([-1], None, None, "-1 is not in the list"),
    ):
        with pytest.raises(TargetError, match=words):
            targets(ticked, a, b, labels=MANY, prompts=(), limits=few)


def test_percent_rounds_small_shares() -> None:
    assert [percent(p) for p in (1, 0.1234, 0.001, 0.0009, 0)] == [
        "100.0%", "12.3%", "0.1%", "< 0.1%", "< 0.1%",
    ]  # fmt: skip


def test_called_names_targets() -> None:
    logits = torch.zeros(1, 5)
    found = resolve([0, contrast(0, 2), lambda z: z[0]], logits, Labels(NAMES))
    labels = found.labels(Labels(NAMES))
    explanation = SimpleNamespace(targets=found, labels=labels)
    assert called(explanation) == ["tabby", "tabby vs Persian cat", "<lambda>"]
