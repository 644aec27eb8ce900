"""The laws: their sums, gradients, units and files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trainplan as tp
from trainplan import laws
from trainplan.laws import kernel
from trainplan.laws.law import Law, kinds
from trainplan.laws.views import view_of

PARAMETERS = {
    "annealing": {"L0": 2.6, "A": 0.45, "alpha": 0.55, "C": 0.41, "lam": 0.99},
    "multi_power": {
        "L0": 2.65, "A": 0.6, "alpha": 0.45, "B": 440.0, "C": 2.1, "beta": 0.6, "gamma": 0.65,
    },
    "functional": {
        "L0": 2.6, "c1": 0.6, "s": 0.45, "c2": 40.0, "c3": 5.0, "c4": 900.0, "gamma": 0.5,
    },
    "concave": {
        "L0": 2.6, "A": 1.0, "s": 0.45, "B": 0.2, "c3": 1.5, "c4": 40.0, "gamma": 0.5, "p": 0.7,
        "T0": 0.1, "peak": 3e-4,
    },
    "convex": {"L0": 2.6, "A": 0.2, "B": 100.0},
    "power": {"L0": 2.6, "A": 20.0, "alpha": 0.5},
}  # fmt: skip
ALL = sorted(PARAMETERS)
WSD = tp.schedules.wsd(3e-4, warmup=50, decay=150, shape="linear", end=0.0)
RATES = {
    "cosine": tp.schedules.cosine(3e-4, warmup=50, end="10%").resolve(600)(np.arange(600)),
    "wsd": WSD.resolve(600)(np.arange(600)),
    "drop": np.repeat([3e-4, 3e-5, 2e-4], 200),
    "zeros": np.repeat([3e-4, 0.0, 1e-4, 0.0], 150),
}


def law_of(kind) -> Law:
    return kinds()[kind](**PARAMETERS[kind])


def naive(law, rates, t, warmup):
    """The equations as they are written, one sum at a time."""
    S = np.cumsum(rates)
    R = 0.0
    for k in range(max(1, warmup + 1), t + 1):
        drop = rates[k - 1] - rates[k]
        if law.kind == "multi_power":
            x = S[t] - (S[k] - rates[k])
            x = 0.0 if x < 1e-18 else x
            c = np.inf if rates[k] == 0 else law.C * rates[k] ** -law.gamma
            share = 0.0 if x == 0 else 1 - (1 + c * x) ** -law.beta
            R += law.B * drop * share
        elif law.kind == "functional":
            share = 1 - (1 + law.c4 * (S[t] - S[k])) ** -law.gamma
            R += law.c2 * drop * (law.c3 + S[k] ** -law.s) * share
        elif law.kind == "concave":
            u = 1000 * law.peak
            fall = (rates[k - 1] / law.peak) ** law.p - (rates[k] / law.peak) ** law.p
            share = 1 - (1 + law.c4 * (S[t] - S[k]) / u) ** -law.gamma
            R += law.B * fall * (law.c3 + (S[k] / u) ** -law.s) / (law.c3 + 1) * share
        elif law.kind == "annealing":
            R += law.C * drop * (1 - law.lam ** (t - k + 1)) / (1 - law.lam)
    if law.kind == "convex":
        last = np.flatnonzero(rates[: t + 1])[-1]
        moving = [k for k in range(last) if rates[k] > 0]
        noise = rates[last] + sum(rates[k] ** 2 / rates[k + 1 : t + 1].sum() for k in moving)
        return law.L0 + law.A / S[t] + law.B * noise
    if law.kind == "power":
        return law.L0 + law.A * (t + 1.0) ** -law.alpha
    if law.kind == "functional":
        return law.L0 + law.c1 * S[t] ** -law.s - R
    if law.kind == "concave":
        return law.L0 + law.A * (S[t] / (1000 * law.peak) + law.T0) ** -law.s - R
    return law.L0 + law.A * S[t] ** -law.alpha - R


@pytest.mark.parametrize("name", sorted(RATES))
@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("warmup", [0, 50])
def test_a_law_is_its_equation(kind, name, warmup):
    at = [60, 199, 200, 201, 449, 599]
    law, rates = law_of(kind), RATES[name]
    expected = [naive(law, rates, t, warmup) for t in at]
    np.testing.assert_allclose(law.on(view_of(rates, at, warmup)), expected, rtol=1e-11)
    np.testing.assert_allclose(law.slopes(view_of(rates, at, warmup))[0], expected, rtol=1e-11)


@pytest.mark.parametrize("name", ["cosine", "wsd", "drop"])
@pytest.mark.parametrize("kind", ALL)
def test_gradients_are_those_of_the_prediction(kind, name):
    law, view = law_of(kind), view_of(RATES[name], [60, 250, 450, 598], 50)
    slopes = law.slopes(view)[1]
    assert slopes.shape == (4, len(law.units))
    for i, parameter in enumerate(law.units):
        value = getattr(law, parameter)
        step = 1e-5 * value

        def moved(by, parameter=parameter, value=value):
            return type(law)(**{**PARAMETERS[kind], parameter: value + by}).on(view)

        numeric = (8 * (moved(step) - moved(-step)) - (moved(2 * step) - moved(-2 * step))) / (
            12 * step
        )
        np.testing.assert_allclose(slopes[:, i], numeric, rtol=2e-6, atol=1e-9, err_msg=parameter)


@pytest.mark.parametrize("kind", ["multi_power", "functional", "concave"])
@pytest.mark.parametrize("shape", ["cosine", "to_zero", "wsd", "noisy", "rewarmed"])
def test_the_fast_sum_of_a_long_schedule_is_the_direct_one(kind, shape, monkeypatch):
    n = 9000
    t = np.arange(n) / n
    rates = (
        3e-4
        * {
            "cosine": 0.55 + 0.45 * np.cos(np.pi * t),
            "to_zero": 1 - t,
            "wsd": np.minimum(1, (1 - t) / 0.3),
            "noisy": np.random.default_rng(0).uniform(0.2, 1, n),
            "rewarmed": np.concatenate([1 - 1.9 * t[: n // 2], 1 - 1.9 * t[: n // 2]]),
        }[shape]
    )
    rates[:200] *= np.arange(200) / 200
    law = law_of(kind)
    fast = law.on(view_of(rates, None, 200))
    monkeypatch.setattr(kernel, "_DIRECT", 10**12)
    at = np.unique(np.r_[200:n:37, n - 40 : n])
    direct = law.on(view_of(rates, at, 200))
    assert np.abs(fast[at] - direct).max() < 1e-6


def test_merged_changes_hardly_change_a_prediction():
    rates = tp.schedules.cosine(3e-4, warmup=500, end="10%").resolve(20_000)(np.arange(20_000))
    at = np.arange(600, 20_000, 128)
    for kind in ALL:
        exact = law_of(kind).on(view_of(rates, at, 500))
        merged = law_of(kind).on(view_of(rates, at, 500, merge=64))
        assert np.abs(exact - merged).max() < 1e-4


@pytest.mark.parametrize("kind", ALL)
def test_laws_are_written_and_read(kind):
    law = law_of(kind)
    assert Law.from_dict(json.loads(json.dumps(law.to_dict()))) == law
    with pytest.raises(tp.PlanError, match="missing parameter"):
        Law.from_dict({k: v for k, v in law.to_dict().items() if k != "L0"})
    with pytest.raises(tp.PlanError, match="unknown parameter"):
        Law.from_dict({**law.to_dict(), "zeta": 1.0})
    with pytest.raises(tp.PlanError, match="not a number"):
        Law.from_dict({**law.to_dict(), "L0": "2"})


def test_an_unknown_law_is_refused():
    with pytest.raises(tp.PlanError, match=r"unknown law.*annealing"):
        Law.from_dict({"law": "anealing"})


def test_a_law_predicts_plans_and_schedules_alike():
    law = law_of("concave")
    plan = tp.Plan(horizon=600, lr=WSD)
    expected = law.predict(RATES["wsd"])
    assert law.predict(plan).tolist() == expected.tolist()
    assert law.predict(WSD, steps=600).tolist() == expected.tolist()
    assert law.predict(WSD.resolve(600), at=[599]).tolist() == expected[-1:].tolist()
    with pytest.raises(tp.PlanError, match="no length"):
        law.predict(WSD)


def curve_of(law, rates, name="c", noise=0.0, every=60):
    at = np.arange(60, rates.size, every)
    loss = law.on(view_of(rates, at, 50))
    wobble = np.random.default_rng(len(name)).normal(0, noise, loss.size)
    return laws.Curve(name, at, loss * np.exp(wobble), rates, 50)


def long_rates(schedule, steps=6000):
    return schedule.resolve(steps)(np.arange(steps))


CONSTANT = long_rates(tp.schedules.constant(3e-4, warmup=50))
COSINE = long_rates(tp.schedules.cosine(3e-4, warmup=50, end="10%"))
UNSEEN = long_rates(tp.schedules.wsd(3e-4, warmup=50, decay="30%", shape="linear", end="5%"))


@pytest.mark.parametrize("kind", ["annealing", "multi_power", "functional", "convex", "power"])
def test_a_fit_without_priors_recovers_the_law_that_made_the_curves(kind):
    truth = kinds()[kind](**{**PARAMETERS[kind], **({"lam": 0.999} if kind == "annealing" else {})})
    drop = np.concatenate([CONSTANT[:3000], np.full(3000, 6e-5)])
    given_curves = [curve_of(truth, r, n) for n, r in enumerate_names(CONSTANT, COSINE, drop)]
    found = laws.fit_law(kind, given_curves, priors=False)
    unseen = curve_of(truth, UNSEEN)
    assert found.objective < 1e-8 * len(given_curves)
    assert np.abs(found.law.residuals(unseen)).max() < 2e-4


def enumerate_names(*rates):
    return [(f"curve {i}", r) for i, r in enumerate(rates)]


@pytest.mark.parametrize("kind", ["annealing", "multi_power", "functional", "concave", "convex"])
def test_fits_do_not_depend_on_how_high_the_peak_is(kind):
    truth = law_of("concave")
    values = []
    for factor in (1.0, 10.0):
        curves = [
            laws.Curve(c.name, c.steps, c.loss, c.rates * factor, 50)
            for c in (curve_of(truth, CONSTANT, "a"), curve_of(truth, COSINE, "b"))
        ]
        values.append(laws.fit_law(kind, curves).values)
    np.testing.assert_allclose(values[0], values[1], rtol=1e-3)


def test_a_fit_says_which_parameters_two_curves_do_not_determine():
    truth = law_of("concave")
    curves = [curve_of(truth, CONSTANT, "a", 1e-3), curve_of(truth, COSINE, "b", 1e-3)]
    free = laws.fit_law("multi_power", curves).free
    assert {"L0", "A", "alpha"} <= set(free)
    assert "gamma" not in free


def test_outliers_hardly_move_a_fit():
    truth = law_of("annealing")
    clean = [curve_of(truth, CONSTANT, "a", 3e-4), curve_of(truth, COSINE, "b", 3e-4)]
    loss = clean[0].loss.copy()
    loss[[20, 50, 80]] *= 1.1
    dirty = [laws.Curve("a", clean[0].steps, loss, CONSTANT, 50), clean[1]]
    options = {"lam": 0.99}
    a = laws.fit_law("annealing", clean, options=options).law.predict(UNSEEN, at=[5999])[0]
    b = laws.fit_law("annealing", dirty, options=options).law.predict(UNSEEN, at=[5999])[0]
    assert abs(a - b) < 2e-3


def test_curves_that_cannot_be_fitted_together_are_refused():
    truth = law_of("annealing")
    low = curve_of(truth, CONSTANT, "low")
    high = laws.Curve("high", low.steps, low.loss, 2 * CONSTANT, 50)
    with pytest.raises(laws.CurveError, match="different peak rates"):
        laws.fit_law("annealing", [low, high])
    with pytest.raises(laws.CurveError, match="fewer than four points"):
        laws.fit_law("annealing", [low.between(0, 80)])
    with pytest.raises(laws.CurveError, match="unknown law"):
        laws.fit_law("anealing", [low])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=4, max_size=60),
    st.sampled_from(["multi_power", "functional", "concave", "annealing"]),
)
def test_any_schedule_has_a_finite_prediction(rates, kind):
    rates = 3e-4 * np.array([1.0, *rates])
    assert np.isfinite(law_of(kind).predict(rates, warmup=0)).all()
