"""The exact toys agree with simulation, with their closed forms, and with what they are for."""

from __future__ import annotations

import numpy as np
import pytest

from trainplan import schedules as s
from trainplan.lab.toys import drift, oscillation, quadratic, valley


def test_the_expected_risk_is_the_mean_of_simulated_runs():
    model = quadratic.NoisyQuadratic(exponent=1.0, noise=0.05, size=5)
    rates = np.linspace(0.8, 0.02, 40)
    random = np.random.default_rng(0)
    theta = np.ones((20_000, 5))
    for eta in rates:
        noise = random.standard_normal(theta.shape) * np.sqrt(model.noise * model.curvatures)
        theta -= eta * (theta * model.curvatures + noise)
    simulated = 0.5 * (theta**2 @ model.curvatures).mean()
    assert simulated == pytest.approx(float(model.risk(rates)), rel=0.03)


def test_many_runs_at_once_are_the_same_as_each_alone():
    model = quadratic.NoisyQuadratic()
    rates = np.random.default_rng(1).random((50, 4))
    together = model.risk(rates)
    assert together == pytest.approx([float(model.risk(rates[:, i])) for i in range(4)], rel=1e-12)


def test_every_schedule_is_tuned_on_the_same_grid():
    model = quadratic.NoisyQuadratic()
    risks = quadratic.tuned_risks(model, {"linear": s.linear(1.0), "same": s.linear(1.0)}, 100)
    assert risks["linear"] == risks["same"] < 0.5 * model.curvatures.sum()


def test_norms_come_from_the_model_whose_risk_is_computed():
    model = quadratic.NoisyQuadratic(noise=0.1, size=20)
    noise = np.linspace(0.0, 4.0, 200)
    norms = np.mean(
        [quadratic.gradient_norms(model, np.full(200, 0.3), k, noise) ** 2 for k in range(300)], 0
    )
    h = model.curvatures
    at_start = (h**2 * model.start).sum()
    assert norms[0] == pytest.approx(at_start, rel=0.15)
    assert norms[-1] > (0.1 * 3.98 * h).sum()
    assert model.risk(np.full(200, 0.3), noise) > model.risk(np.full(200, 0.3), 0.0)


def test_noise_between_the_walls_settles_at_its_floor():
    hills = valley.RiverValley()
    hill, _, _ = hills.run(np.full(2000, 0.1), valley.State(10.0, 0.0, 0.1))
    assert hill[-1] == pytest.approx(hills.floor(0.1))


def test_a_valley_can_be_left_and_entered_again():
    hills = valley.RiverValley()
    start = valley.State(10.0, 0.0, 0.1)
    rates = np.linspace(0.15, 0.01, 100)
    whole = hills.run(rates, start)
    first = hills.run(rates[:60], start)
    second = hills.run(rates[60:], first[2])
    assert whole[2] == second[2]
    assert whole[0].tolist() == [*first[0], *second[0]]


def test_late_good_data_is_worth_more_to_a_rate_that_stays_high():
    problem = drift.DriftingRegression(steps=1000)
    t = np.arange(1000.0)
    rates = {"constant": np.full(1000, 0.1), "cosine": s.cosine(0.1).resolve(1000)(t)}
    found = problem.run(rates, "ascend", seed=3)
    assert found["constant"][0] < found["cosine"][0]
    assert found["constant"][1].shape == (17, 40)
    error = problem.error(found["cosine"][1][-1], problem.target(3))
    assert error == found["cosine"][0]


def test_orders_hold_the_same_samples_of_quality():
    with pytest.raises(ValueError, match="unknown order"):
        drift.DriftingRegression().run({"a": np.zeros(2000)}, "sideways", 0)


@pytest.mark.parametrize(("c", "settles"), [(0.4, True), (0.6, False)])
def test_the_strong_feature_oscillates_above_its_threshold(c, settles):
    values = oscillation.strong_recursion(0.5, c, 400)
    assert (abs(values[-1] - 1) < 1e-6) == settles
    assert values[-100:].mean() <= 1 + 1e-9


def test_gradients_are_those_of_the_loss():
    random = np.random.default_rng(0)
    x, y = random.standard_normal((1, 2, 6)), np.array([1.0])
    weights = random.standard_normal((2, 3, 6)) * 0.3
    _, moved = oscillation.sgd(x, y, weights, [0], 1.0)
    step = 1e-6
    for index in [(0, 0, 0), (1, 2, 3), (0, 1, 5)]:
        near = weights.copy()
        near[index] += step
        loss = [0.5 * (oscillation.outputs(w, x)[0] - 1) ** 2 for w in (weights, near)]
        assert weights[index] - moved[index] == pytest.approx((loss[1] - loss[0]) / step, abs=1e-4)


def test_a_run_that_diverges_says_so():
    found = oscillation.TwoFeatures().train(c=3.0, steps=400, seed=0)
    assert found["diverged"] == 1.0
    assert found["loss"] == np.inf
