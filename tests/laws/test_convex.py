"""The convex bound: against its published form, against descent itself, and what it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trainplan as tp
from trainplan import laws
from trainplan.laws import kernel
from trainplan.laws.convex import Convex, best_scale, bound_terms
from trainplan.laws.predictor import MIXED


def published(e, G, t):
    """The second and third term as they are printed, for D = 0."""
    S, Q = e[: t + 1].sum(), (e**2 * G**2)[: t + 1]
    total = Q.sum() / (2 * S)
    for k in range(t):
        after, here = e[k + 1 : t + 1].sum(), e[k : t + 1].sum()
        total += 0.5 * e[k] / after * Q[k:].sum() / here
    return total


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=30), st.integers(0, 2**31))
def test_the_terms_are_those_of_the_published_bound(rates, seed):
    e = np.array(rates)
    G = np.random.default_rng(seed).uniform(0.1, 3, e.size)
    first, second = bound_terms(e, norms=G)
    np.testing.assert_allclose(first, 0.5 / np.cumsum(e), rtol=1e-12)
    np.testing.assert_allclose(second, [published(e, G, t) for t in range(e.size)], rtol=1e-9)


@pytest.mark.parametrize("shape", ["linear", "cosine", "wsd", "constant"])
def test_the_fast_sum_is_the_direct_one(shape, monkeypatch):
    n = 9000
    t = np.arange(n) / n
    rates = {
        "linear": 1 - t,
        "cosine": 0.55 + 0.45 * np.cos(np.pi * t),
        "wsd": np.minimum(1, (1 - t) / 0.3),
        "constant": np.ones(n),
    }[shape] * np.minimum(1, np.arange(n) / 200)
    fast = bound_terms(rates)[1]
    monkeypatch.setattr(kernel, "_DIRECT", 10**12)
    at = np.r_[1:n:97, n - 30 : n]
    np.testing.assert_allclose(fast[at], bound_terms(rates, at)[1], rtol=5e-5)


@pytest.mark.parametrize("rates", [np.full(200, 0.05), 0.1 * (1 - np.arange(200) / 200)])
def test_descent_on_a_convex_function_stays_below_the_bound(rates):
    start = 1.3
    x, excess = start, []
    for e in rates:  # the absolute value: convex, all subgradients at most 1 long
        excess.append(abs(x))
        x -= e * np.sign(x)
    first, second = bound_terms(rates)
    assert (np.array(excess) <= start**2 * first + second + 1e-12).all()


def test_linear_decay_has_nearly_the_least_bound_and_a_late_drop_comes_out():
    n = 2000
    t = np.arange(n) / n
    bounds = {
        name: best_scale(rates)[1]
        for name, rates in {
            "constant": np.ones(n),
            "wsd": np.minimum(1, (1 - t) / 0.2),
            "linear": 1 - t,
            "square": (1 - t) ** 2,
        }.items()
    }
    assert bounds["linear"] < bounds["wsd"] < bounds["constant"]
    assert bounds["linear"] < bounds["square"]
    second = bound_terms(np.minimum(1, (1 - t) / 0.2))[1]
    assert second[-1] < 0.5 * second[1599]


def test_the_best_scale_has_the_least_bound_and_falls_like_the_root_of_the_length():
    rates = 1 - np.arange(500) / 500
    scale, least = best_scale(rates, distance=2.0, norms=3.0)

    def bound(factor):
        first, second = bound_terms(factor * rates, [499], 3.0)
        return float(4.0 * first[0] + second[0])

    assert bound(scale) == pytest.approx(least, rel=1e-12)
    assert least < min(bound(0.9 * scale), bound(1.1 * scale))
    longer = best_scale(1 - np.arange(2000) / 2000, distance=2.0, norms=3.0)[0]
    assert longer / scale == pytest.approx(0.5, rel=0.01)


def test_steps_at_rate_zero_change_nothing():
    rates = np.array([0.0, 1.0, 0.5, 0.0, 0.0, 0.5])
    first, second = bound_terms(rates)
    kept = bound_terms(rates[rates > 0])
    assert first[1:].tolist() == kept[0][[0, 1, 1, 1, 2]].tolist()
    assert second[1:].tolist() == kept[1][[0, 1, 1, 1, 2]].tolist()
    assert np.isinf(first[0])
    assert second[0] == 0


def test_sudden_falls_are_doubted_and_gradual_ones_are_not():
    cosine = tp.schedules.cosine(1e-3, warmup=50).resolve(600)(np.arange(600))
    assert Convex.doubts(cosine) == []
    assert Convex.doubts([1.0, 0.5, 0.0]) == []
    assert len(Convex.doubts(np.repeat([1.0, 0.3], 300))) == 1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([1.0, -1.0],), "rates"),
        (([],), "rates"),
        (([1.0, 1.0], None, [1.0]), "norms"),
        (([1.0, 1.0], None, [1.0, np.nan]), "norms"),
        (([1.0, 1.0], [2]), r"0\.\.1"),
    ],
)
def test_bad_input_is_refused(arguments, match):
    with pytest.raises(tp.PlanError, match=match):
        bound_terms(*arguments)


def test_a_scale_needs_a_step_and_a_distance():
    with pytest.raises(tp.PlanError, match="no step moves"):
        best_scale(np.zeros(5))
    with pytest.raises(tp.PlanError, match="distance"):
        best_scale(np.ones(5), distance=0.0)


def test_the_bound_is_a_law_like_the_others_but_not_in_the_mixture():
    assert "convex" not in MIXED
    truth, n = Convex(2.6, 0.3, 40.0), 3000
    curves = []
    for name, schedule in {
        "constant": tp.schedules.constant(3e-4, warmup=50),
        "cosine": tp.schedules.cosine(3e-4, warmup=50, end="10%"),
    }.items():
        rates = schedule.resolve(n)(np.arange(n))
        at = np.arange(100, n, 40)
        curves.append(laws.Curve(name, at, truth.predict(rates, at=at), rates, 50))
    plan = tp.schedules.wsd(3e-4, warmup=50, decay="30%", end="10%").resolve(n)
    ahead = laws.fit("convex", curves).predict(plan, at=[n - 1])
    assert abs(ahead.loss[0] - truth.predict(plan, at=[n - 1])[0]) < 1e-4
