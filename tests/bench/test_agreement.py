"""Rank agreement between metrics against ranks and pairs counted by hand."""

from __future__ import annotations

import csv
from itertools import combinations, permutations
from pathlib import Path

import pytest
from PIL import Image

from gradtoken.bench.agreement import agreements, to_figure, write
from gradtoken.bench.summary import Row
from gradtoken.metrics.bootstrap import Interval

METHODS = ("a", "b", "c", "d", "e")
POINTING = (0.9, 0.7, 0.8, 0.1, 0.3)
SACO = (0.5, 0.6, 0.1, -0.2, 0.0)
DELETION = (0.2, 0.1, 0.3, 0.5, 0.4)
"""Lower is better."""


def row(method: str, metric: str, mean: float, n: int = 7) -> Row:
    return Row(method, metric, Interval(mean, mean - 0.1, mean + 0.1, n))


TABLE = [
    row(method, metric, mean)
    for metric, means in (("pointing", POINTING), ("saco", SACO), ("deletion", DELETION))
    for method, mean in zip(METHODS, means, strict=True)
]


def by_hand(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, float]:
    """Spearman by squared differences of ranks, Kendall by pairs in and out of order."""
    ranks = [[sum(other < value for other in values) for value in values] for values in (a, b)]
    n = len(a)
    squares = sum((x - y) ** 2 for x, y in zip(*ranks, strict=True))
    pairs = [(a[i] - a[j]) * (b[i] - b[j]) for i, j in combinations(range(n), 2)]
    concordant = sum(1 if product > 0 else -1 for product in pairs)
    return 1 - 6 * squares / (n * (n * n - 1)), concordant / len(pairs)


def test_agreements_by_hand() -> None:
    found = {each.metrics: each for each in agreements(TABLE)}
    better = {"pointing": POINTING, "saco": SACO, "deletion": tuple(-v for v in DELETION)}
    assert set(found) == {("pointing", "saco"), ("pointing", "deletion"), ("saco", "deletion")}
    for (first, second), each in found.items():
        spearman, kendall = by_hand(better[first], better[second])
        assert each.spearman == pytest.approx(spearman)
        assert each.kendall == pytest.approx(kendall)
        assert each.methods == 5
    assert found["pointing", "deletion"].spearman > 0


def test_agreements_count_methods_that_both_have() -> None:
    table = [*TABLE[:9], row("x", "pointing", 0.4), row("e", "saco", 0.0, n=0)]
    (each,) = agreements(table)
    assert each.methods == 4
    spearman, kendall = by_hand(POINTING[:4], SACO[:4])
    assert (each.spearman, each.kendall) == pytest.approx((spearman, kendall))


def test_agreements_leave_out_what_ranks_nothing() -> None:
    constant = [row(method, "coupling", 1.0) for method in METHODS]
    failed = [row(method, "failed", i / 10) for i, method in enumerate(METHODS)]
    assert agreements([*TABLE[:5], *constant, *failed]) == []
    assert agreements([*TABLE[:2], *TABLE[5:7]]) == []


def test_write_agreement(tmp_path: Path) -> None:
    paths = write(tmp_path, TABLE)
    assert [path.name for path in paths] == ["agreement.csv", "agreement.png"]
    with paths[0].open() as file:
        lines = list(csv.DictReader(file))
    assert [line["metric"] for line in lines] == ["pointing", "pointing", "saco"]
    expected = by_hand(POINTING, SACO)[0]
    assert float(lines[0]["spearman"]) == pytest.approx(expected, abs=1e-5)
    assert min(Image.open(paths[1]).size) > 200
    assert write(tmp_path / "none", TABLE[:5]) == []
    assert not (tmp_path / "none").exists()


def test_figure_holds_each_pair_twice() -> None:
    figure = to_figure(agreements(TABLE))
    values = figure.axes[0].images[0].get_array()
    better = (POINTING, SACO, tuple(-v for v in DELETION))
    for i, j in permutations(range(3), 2):
        spearman, kendall = by_hand(better[min(i, j)], better[max(i, j)])
        assert values[i, j] == pytest.approx(spearman if i > j else kendall)
