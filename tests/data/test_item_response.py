"""Abilities and difficulties are the maxima they claim to be, and find wrong labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import (
    difficulty_at,
    estimate_ability,
    fit_rasch,
    negative_log_posterior,
)

optimize = pytest.importorskip("scipy.optimize")
special = pytest.importorskip("scipy.special")
RNG = np.random.default_rng(0)


def crowd(subjects, items, seed=0, missing=0.0):
    random = np.random.default_rng(seed)
    abilities, difficulties = random.normal(size=subjects), random.normal(0, 1.5, items)
    p = special.expit(abilities[:, None] - difficulties)
    responses = (random.random(p.shape) < p).astype(float)
    responses[random.random(p.shape) < missing] = np.nan
    return responses, abilities, difficulties


@pytest.mark.parametrize(
    ("subjects", "items", "missing"), [(4, 30, 0.0), (30, 4, 0.3), (9, 9, 0.5)]
)
def test_the_fit_agrees_with_a_general_optimizer(subjects, items, missing):
    responses, *_ = crowd(subjects, items, missing=missing)
    asked = ~np.isnan(responses)
    right = np.where(asked, responses, 0.0)

    def loss(x):
        a, b = x[:subjects], x[subjects:]
        z = a[:, None] - b
        fits = (asked * (right * z - np.logaddexp(0, z))).sum() - a @ a / 2 - b @ b / (2 * 1.5**2)
        pull = asked * (right - special.expit(z))
        return -fits, np.concatenate([a - pull.sum(1), b / 1.5**2 + pull.sum(0)])

    start = np.zeros(subjects + items)
    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 2000}
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    fit = fit_rasch(responses, difficulty_sd=1.5)
    assert np.allclose(np.concatenate([fit.abilities, fit.difficulties]), found, atol=1e-5)
    assert np.abs(loss(np.concatenate([fit.abilities, fit.difficulties]))[1]).max() < 1e-8


def test_a_large_crowd_finds_the_scale_that_made_it():
    responses, abilities, difficulties = crowd(60, 2000)
    fit = fit_rasch(responses)
    assert np.corrcoef(fit.difficulties, difficulties)[0, 1] > 0.95
    assert np.corrcoef(fit.abilities, abilities)[0, 1] > 0.98


def test_items_that_all_or_none_answer_stay_finite_and_extreme():
    responses = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [1, 0, np.nan, np.nan]])
    difficulties = fit_rasch(responses).difficulties
    assert np.isfinite(difficulties).all()
    assert difficulties.argmin() == 0
    assert difficulties.argmax() == 1


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(-8, 8), st.booleans()), min_size=1, max_size=60))
def test_the_ability_is_the_root_of_its_equation(items):
    b, u = np.array([x for x, _ in items]), np.array([x for _, x in items])

    def slope(ability):
        return -ability + (u - special.expit(ability - b)).sum()

    found = estimate_ability(b, u)
    assert found == pytest.approx(optimize.brentq(slope, -61, 61, xtol=1e-13), abs=1e-9)
    near = negative_log_posterior([found - 0.01, found, found + 0.01], b, u)
    assert near[1] == near.min()


def test_more_right_answers_mean_more_ability():
    b = RNG.normal(size=50)
    found = [estimate_ability(b, np.arange(50) < k) for k in (0, 10, 25, 40, 50)]
    assert np.all(np.diff(found) > 0)
    assert np.isfinite(found).all()


def test_a_probability_of_a_half_is_at_the_ability():
    assert difficulty_at(0.7, 0.5) == pytest.approx(0.7)
    p = np.array([0.1, 0.6, 0.99])
    assert np.allclose(special.expit(0.7 - difficulty_at(0.7, p)), p)


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: fit_rasch([1, 0]), "responses"),
        (lambda: fit_rasch([[1, -1]]), "responses"),
        (lambda: fit_rasch([[np.nan]]), "responses"),
        (lambda: fit_rasch([[1.0]], difficulty_sd=0), "difficulty_sd"),
        (lambda: estimate_ability([0.0, 1.0], [1]), "correct"),
        (lambda: estimate_ability([0.0], [-1]), "correct"),
        (lambda: estimate_ability([np.inf], [1]), "difficulties"),
        (lambda: difficulty_at(0.0, 1.0), "probability"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
