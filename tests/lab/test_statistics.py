"""Statistics over seeds: checked against SciPy, by simulation, and by their invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trainplan.lab import statistics as S

losses = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


def test_the_mean_has_the_interval_of_students_t():
    x = np.array([2.31, 2.35, 2.28, 2.40])
    low, high = stats.t.interval(0.95, len(x) - 1, loc=x.mean(), scale=stats.sem(x))
    interval = S.mean_interval(x)
    np.testing.assert_allclose([interval.low, interval.high], [low, high], rtol=1e-12)


def test_the_p_value_is_that_of_scipys_paired_test():
    a, b = [2.31, 2.35, 2.28, 2.40], [2.29, 2.36, 2.20, 2.31]
    assert S.paired_p_value(a, b) == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-12)


def test_an_interval_excludes_zero_exactly_when_its_test_rejects():
    random = np.random.default_rng(0)
    for _ in range(200):
        a, b = random.normal(0.4, 1, 5), random.normal(0, 1, 5)
        assert S.paired_difference(a, b).excludes_zero == (S.paired_p_value(a, b) < 0.05)


def test_95_percent_intervals_hold_the_truth_in_95_percent_of_experiments():
    random = np.random.default_rng(1)
    held = [
        (interval := S.mean_interval(random.normal(3, 2, 5))).low <= 3 <= interval.high
        for _ in range(4000)
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)


def test_pairing_removes_what_the_seed_does_to_both_arms():
    seeds = np.random.default_rng(2).normal(0, 10, 6)
    difference = S.paired_difference(seeds - 0.01, seeds)
    assert difference.estimate == pytest.approx(-0.01)
    assert difference.high - difference.low < 1e-9


@given(losses, st.floats(-100, 100))
def test_moving_all_losses_moves_their_interval(values, by):
    before, after = S.mean_interval(values), S.mean_interval(np.array(values) + by)
    assert after.estimate == pytest.approx(before.estimate + by, abs=1e-6)
    assert after.high - after.low == pytest.approx(before.high - before.low, abs=1e-6)


@given(losses, losses)
def test_improvement_counts_pairs_of_runs(a, b):
    wins = np.mean([1.0 * (x < y) + 0.5 * (x == y) for x in a for y in b])
    result = S.probability_of_improvement(a, b, resamples=50)
    assert result.estimate == pytest.approx(wins)
    assert 0 <= result.low <= result.high <= 1


@given(losses, losses)
def test_improvement_of_each_over_the_other_adds_up_to_one(a, b):
    there = S.probability_of_improvement(a, b, resamples=10).estimate
    back = S.probability_of_improvement(b, a, resamples=10).estimate
    assert there + back == pytest.approx(1)


def test_a_diverged_run_sets_no_bound_and_never_wins():
    assert S.mean_interval([1.0, math.inf]).high == math.inf
    assert math.isnan(S.mean_interval([1.0, math.nan]).estimate)
    assert S.paired_p_value([1.0, math.inf], [1.0, 2.0]) == 1.0
    assert S.probability_of_improvement([math.nan], [5.0]).estimate == 0.0


def test_one_seed_sets_no_bound():
    assert S.mean_interval([2.0]) == S.Interval(2.0, -math.inf, math.inf)
    assert S.paired_p_value([1.0], [2.0]) == 1.0


def test_holm_is_at_least_as_strict_as_no_adjustment_and_at_most_as_bonferroni():
    p = [0.003, 0.04, 0.01, 0.5]
    adjusted = S.holm(p)
    assert all(q <= a <= min(1, len(p) * q) for q, a in zip(p, adjusted, strict=True))
    assert adjusted == pytest.approx([0.012, 0.08, 0.03, 0.5])


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_what_is_no_list_of_losses_is_refused(values):
    with pytest.raises(ValueError, match="list of at least one number"):
        S.mean_interval(values)


def test_pairs_need_the_same_seeds():
    with pytest.raises(ValueError, match="3 seeds and b has 2"):
        S.paired_difference([1, 2, 3], [1, 2])
