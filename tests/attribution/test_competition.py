"""Rivals of a class and their weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradtoken.attribution.competition import (
    competition,
    correlation_of_maps,
    have_rivals,
)
from gradtoken.errors import NotSupportedError
from gradtoken.targets import ClassTarget, OutputTarget, Targets, contrast, resolve
from gradtoken.targets.labels import Labels

LOGITS = torch.tensor([[0.0, 3.0, 1.0, 2.0, -1.0]], dtype=torch.float64)


def only(*classes: int) -> Targets:
    return Targets([[ClassTarget(c) for c in classes]])


def by_class(weights: Tensor, candidates: Tensor) -> list[dict[int, float]]:
    return [
        {c: w for c, w in zip(candidates[0].tolist(), row, strict=True) if w}
        for row in weights[0].tolist()
    ]


@pytest.mark.parametrize(("activation", "probability"), [("softmax", "softmax"), ("sigmoid", None)])
def test_weights_are_roots_of_probability_of_likeliest_others(activation, probability) -> None:
    likely = LOGITS[0].softmax(-1) if probability else LOGITS[0].sigmoid()
    rivals = competition(LOGITS, activation, rivals=2, weight="likelihood")
    listed, leading = by_class(rivals.weights(only(4, 1), None), rivals.candidates)
    total = float(likely[1].sqrt() + likely[3].sqrt())
    assert listed == pytest.approx({k: float(likely[k].sqrt()) / total for k in (1, 3)})
    total = float(likely[3].sqrt() + likely[2].sqrt())
    assert leading == pytest.approx({k: float(likely[k].sqrt()) / total for k in (3, 2)})


def test_weights_equal_and_of_few_classes() -> None:
    rivals = competition(LOGITS, "none", rivals=12, weight="equal")
    (weights,) = by_class(rivals.weights(only(0), None), rivals.candidates)
    assert weights == pytest.approx(dict.fromkeys((1, 2, 3, 4), 0.25))


def test_weights_fall_with_overlap() -> None:
    rivals = competition(LOGITS, "softmax", rivals=2, weight="overlap")
    assert rivals.by_overlap
    overlap = torch.tensor([[[1.0, -0.5, 0.3]]], dtype=torch.float64)
    (weights,) = by_class(rivals.weights(only(0), overlap), rivals.candidates)
    assert weights == pytest.approx({3: 1.0})
    (none,) = by_class(rivals.weights(only(0), torch.ones_like(overlap)), rivals.candidates)
    assert not none


def test_weights_of_targets_other_than_classes_are_0() -> None:
    rivals = competition(LOGITS, "softmax", rivals=2, weight="likelihood")
    pair = resolve([contrast(0, 1)], LOGITS, Labels([str(i) for i in range(5)]))
    assert not rivals.weights(pair, None).any()
    assert not have_rivals(pair)
    assert not have_rivals(Targets([[OutputTarget(lambda z: z[0])]]))
    assert have_rivals(Targets([[OutputTarget(lambda z: z[0]), ClassTarget(1)]]))


def test_against_subtracts_weighted_rivals() -> None:
    rivals = competition(LOGITS, "softmax", rivals=2, weight="overlap")
    maps = {
        1: torch.tensor([1.0, 0.0, 2.0]),
        3: torch.tensor([0.0, 1.0, 5.0]),
        2: torch.tensor([3.0, 0.0, 0.0]),
        4: torch.tensor([0.5, 0.7, 0.9]),
    }
    maps = {k: v.double() for k, v in maps.items()}

    def evidence(seeds: Tensor) -> Tensor:
        return torch.stack([maps[int(seed.argmax())] for seed in seeds[:, 0]])[None]

    own = torch.zeros(1, 1, 5, dtype=torch.float64)
    own[..., 4] = 1
    seeds = rivals.against(only(4), own, evidence)[0, 0]
    likely = LOGITS[0].softmax(-1).sqrt()
    raw = {
        k: float(likely[k] * (1 - torch.corrcoef(torch.stack([maps[4], maps[k]]))[0, 1]))
        for k in (1, 3)
    }
    expected = torch.zeros(5, dtype=torch.float64)
    expected[4] = 1
    for k, weight in raw.items():
        expected[k] -= weight / sum(raw.values())
    torch.testing.assert_close(seeds, expected)


def test_correlation_of_constant_map_is_0() -> None:
    maps = torch.randn(1, 2, 6, generator=torch.Generator().manual_seed(0)).double()
    expected = torch.corrcoef(maps[0])
    torch.testing.assert_close(correlation_of_maps(maps, maps)[0], expected)
    assert not correlation_of_maps(torch.ones(1, 1, 6), maps[:, :1].float()).any()


def test_competition_needs_probabilities() -> None:
    with pytest.raises(NotSupportedError, match="weights rivals by probability"):
        competition(LOGITS, "none", rivals=2, weight="likelihood")


def test_weights_of_unlikely_rivals_do_not_vanish() -> None:
    logits = torch.tensor([[400.0, 0.0, -2.0]])
    rivals = competition(logits, "softmax", rivals=2, weight="likelihood")
    (weights,) = by_class(rivals.weights(only(0), None), rivals.candidates)
    total = 1 + float(torch.tensor(-1.0).exp())
    assert weights == pytest.approx({1: 1 / total, 2: 1 - 1 / total})


def test_correlation_is_exact_under_autocast() -> None:
    maps = torch.randn(1, 2, 196, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = correlation_of_maps(maps, maps)
    torch.testing.assert_close(inside, correlation_of_maps(maps, maps))
