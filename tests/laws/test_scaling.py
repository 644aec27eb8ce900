"""The scaling law's optimum is one, and both laws are found again from what they predict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.laws import (
    RateLaw,
    ScalingLaw,
    batch_exponent,
    best_gamma,
    fit_rate_law,
    fit_scaling_law,
    optimal_batch,
    trunk_cost,
)

EXPONENTS = st.floats(0.05, 1.0)
PREFACTORS = st.floats(1e-2, 10.0)
LAWS = st.builds(ScalingLaw, PREFACTORS, EXPONENTS, PREFACTORS, EXPONENTS, st.floats(0, 2))
MINICPM = ScalingLaw(0.0715, 0.29, 0.3, 0.23, 0.31)


@given(LAWS, st.floats(1e-3, 1e6))
def test_no_other_division_of_the_compute_has_a_lower_loss(law, compute):
    best = law.optimum(compute)
    assert 6 * best.parameters * best.tokens == pytest.approx(compute)
    lowest = law.loss(best.parameters, best.tokens)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert law.loss(best.parameters * factor, best.tokens / factor) >= lowest * (1 - 1e-12)


def test_the_averages_of_the_paper_want_190_tokens_per_parameter():
    assert MINICPM.k**2 == pytest.approx(0.0098, abs=1e-4)
    assert MINICPM.optimum(1000.0).tokens_per_parameter == pytest.approx(184, abs=1)


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_is_found_within_fifteen_percent_from_noisy_losses(seed):
    sizes, lengths = np.geomspace(0.009, 0.5, 6), np.geomspace(0.2, 60, 8)
    n, d = np.meshgrid(sizes, lengths)
    noise = np.random.default_rng(seed).standard_normal(n.shape)
    # The law must be identifiable: with the paper's exponents the two terms are nearly alike.
    law = ScalingLaw(0.12, 0.45, 0.4, 0.35, 0.6)
    found = fit_scaling_law(n, d, law.loss(n, d) * (1 + 0.003 * noise))
    compute = 6 * 0.1 * 10
    expected = law.optimum(compute).tokens_per_parameter
    assert found.optimum(compute).tokens_per_parameter == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("unit", [1.0, 1e9])
def test_the_fit_does_not_depend_on_the_unit(unit):
    n, d = np.meshgrid(np.geomspace(0.01, 1, 4), np.geomspace(0.5, 50, 5))
    loss = MINICPM.loss(n, d)
    found = fit_scaling_law(n * unit, d * unit, loss)
    assert found.loss(n * unit, d * unit) == pytest.approx(loss, rel=1e-3)
    assert found.alpha == pytest.approx(MINICPM.alpha, rel=0.05)


def test_an_outlier_does_not_move_the_fit():
    n, d = np.meshgrid(np.geomspace(0.01, 1, 5), np.geomspace(0.5, 50, 5))
    loss = MINICPM.loss(n, d)
    loss[2, 2] *= 1.5
    found = fit_scaling_law(n, d, loss)
    keep = np.ones_like(loss, dtype=bool)
    keep[2, 2] = False
    assert found.loss(n, d)[keep] == pytest.approx(loss[keep], rel=0.01)


def test_larger_batches_for_lower_losses():
    batches = optimal_batch([4.0, 3.0, 2.5])
    assert (np.diff(batches) > 0).all()
    assert optimal_batch(3.0) == pytest.approx(1.277e6, rel=1e-3)


def test_one_trunk_costs_less_and_grows_with_the_longest_run_only():
    shared, separate = trunk_cost([10, 20, 40], 0.1)
    assert (shared, separate) == pytest.approx((47, 77))
    lengths = list(range(1, 101))
    assert trunk_cost(lengths)[1] / trunk_cost(lengths)[0] > 9


@given(st.floats(0.1, 100), st.floats(-1, -0.05))
def test_a_rate_law_is_found_again(a, b):
    tokens = np.geomspace(1e9, 1e12, 5)
    found = fit_rate_law(tokens, RateLaw(a, b).gamma(tokens))
    assert (found.a, found.b) == pytest.approx((a, b), rel=1e-6)


@given(st.floats(-1, 2), st.floats(1e-5, 1))
def test_the_batch_exponent_is_the_slope_of_the_logarithms(power, scale):
    batches = np.array([16, 32, 128, 512])
    assert batch_exponent(batches, scale * batches**power) == pytest.approx(power, abs=1e-9)
    with pytest.raises(PlanError, match="two batch sizes"):
        batch_exponent([16, 16], [scale, scale])


def test_the_rate_is_linear_in_the_batch_and_falls_with_tokens():
    law = RateLaw()
    rates = law.rate(np.array([128, 256])[:, None], [2e9, 256e9])
    assert rates[1] == pytest.approx(2 * rates[0])
    assert (rates[:, 1] < rates[:, 0]).all()
    assert law.rate(1024, 10e12) == pytest.approx(0.0011, abs=5e-5)


def test_the_cap_ends_where_the_law_crosses_it():
    law = RateLaw(4.0, -0.51)
    tokens = law.cap_ends(batch=1024, peak=0.02)
    assert law.rate(1024, tokens) == pytest.approx(0.02)


def test_the_best_batches_of_a_sweep_count_and_diverged_runs_do_not():
    rates, batches = [0.1, 0.2, 0.4], [1, 2, 4]
    losses = [[3.0, 3.1, np.nan], [3.0, 2.8, np.inf], [np.nan, np.nan, np.nan]]
    assert best_gamma(rates, batches, losses) == pytest.approx((0.1 / 1 + 0.2 / 2) / 2)
    assert best_gamma(rates, batches, losses, top=1) == pytest.approx(0.2 / 2)


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda: ScalingLaw(0, 0.3, 0.3, 0.3), "c_n"),
        (lambda: MINICPM.loss(0, 1), "parameters"),
        (lambda: MINICPM.optimum(-1), "compute"),
        (lambda: fit_scaling_law([1, 2], [1, 2], [3, 2]), "loss"),
        (lambda: fit_scaling_law([1] * 5, range(1, 6), [3] * 5), "parameters"),
        (lambda: fit_scaling_law(range(1, 6), [1] * 5, [3] * 5), "tokens"),
        (lambda: fit_scaling_law(range(1, 6), range(1, 6), [0] * 5), "loss"),
        (lambda: optimal_batch(0), "loss"),
        (lambda: trunk_cost([]), "fraction"),
        (lambda: trunk_cost([1], -0.1), "fraction"),
        (lambda: RateLaw(a=-1), "a"),
        (lambda: RateLaw(b=0.5).cap_ends(1, 1), "b"),
        (lambda: fit_rate_law([1e9, 1e9], [1, 2]), "gamma"),
        (lambda: fit_rate_law([1e9, 2e9], [1]), "gamma"),
        (lambda: best_gamma([1.0], [1], [[np.nan]]), "losses"),
        (lambda: best_gamma([1.0], [1], [1.0]), "losses"),
    ],
)
def test_bad_input_is_named(call, place):
    with pytest.raises(PlanError) as caught:
        call()
    assert caught.value.place == place
