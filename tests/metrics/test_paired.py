"""Paired tests against every swap written out and against scipy, and Holm's correction by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import permutation_test

from gradtoken.metrics.paired import Pairing, holm, swap_tests


def means(ours: np.ndarray, theirs: np.ndarray, images: np.ndarray) -> Pairing:
    ones = np.ones(len(images))
    return Pairing([(ours, ones)], [(theirs, ones)], images)


def test_swap_tests_try_every_swap_of_few_images() -> None:
    ours = np.array([0.9, 0.8, 0.7, 0.4, 0.6])
    theirs = np.array([0.5, 0.6, 0.75, 0.1, 0.2])
    images = np.array(["a", "a", "b", "c", "c"], dtype=object)
    sums = [0.6, -0.05, 0.7]
    gaps = [abs(sum(s * g for s, g in zip(signs, sums, strict=True)))
            for signs in product((1, -1), repeat=3)]  # fmt: skip
    expected = np.mean([gap >= abs(sum(sums)) - 1e-12 for gap in gaps])
    (p,) = swap_tests([means(ours, theirs, images)])
    assert p == expected == 0.5


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.1])
def test_swap_tests_agree_with_scipy(shift: float) -> None:
    rng = np.random.default_rng(3)
    ours = rng.uniform(size=60)
    theirs = ours + rng.normal(shift, 0.25, size=60)
    expected = permutation_test(
        (ours, theirs),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=100_000,
        rng=np.random.default_rng(0),
    ).pvalue
    (p,) = swap_tests([means(ours, theirs, np.arange(60).astype(object))])
    assert p == pytest.approx(expected, abs=0.006)


def test_swap_tests_of_ratios_swap_counts() -> None:
    rng = np.random.default_rng(1)
    images = np.arange(5).astype(object)
    ours, theirs = (
        [(rng.integers(1, 50, 5).astype(float), rng.integers(50, 99, 5).astype(float))
         for _ in range(2)]
        for _ in range(2)
    )  # fmt: skip

    def gap(kept: tuple[int, ...]) -> float:
        total = 0.0
        for (a, b), (c, d) in zip(ours, theirs, strict=True):
            above, below, other, under = (
                sum(float((x if k else y)[i]) for i, k in enumerate(kept))
                for x, y in ((a, c), (b, d), (c, a), (d, b))
            )
            total += above / below - other / under
        return total / 2

    observed = abs(gap((1,) * 5))
    expected = np.mean([abs(gap(k)) >= observed - 1e-12 for k in product((0, 1), repeat=5)])
    (p,) = swap_tests([Pairing(ours, theirs, images)])
    assert p == pytest.approx(expected)


def test_swap_tests_share_swaps_and_keep_their_own_images() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.uniform(size=(2, 40))
    images = np.arange(40).astype(object)
    some = means(ours[:9], theirs[:9], images[:9])
    both = swap_tests([means(ours, theirs, images), some, means(ours, ours, images)])
    (alone,) = swap_tests([some])
    assert both[1] == pytest.approx(alone, abs=0.01)
    assert both[2] == 1
    assert (swap_tests([some, some]) == alone).all()


def test_swap_tests_under_no_difference_are_uniform() -> None:
    rng = np.random.default_rng(5)
    images = np.arange(30).astype(object)
    pairings = [means(*rng.normal(size=(2, 30)), images) for _ in range(300)]
    p = swap_tests(pairings)
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(p) == pytest.approx(0.5, abs=0.05)
    assert not (holm(p) < 0.05).any()


def test_swap_tests_without_instances() -> None:
    nothing = means(np.array([]), np.array([]), np.array([], dtype=object))
    assert np.isnan(swap_tests([nothing])).all()
    assert len(swap_tests([])) == 0


def test_holm_by_hand() -> None:
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.5])), [1, 1])
