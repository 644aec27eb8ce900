"""Refinement gives back linear decay for constant norms, and rises where gradients fall."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainplan.errors import PlanError
from trainplan.schedules import from_dict, refine
from trainplan.schedules.refinement import median_width, refined_rates, smooth_norms


def test_constant_norms_give_linear_decay() -> None:
    schedule = refine(np.full(1000, 3.0), peak=0.1).resolve(1000)
    expected = 0.1 * (1 - np.arange(1001) / 1000)
    np.testing.assert_allclose(schedule(np.arange(1001)), expected, atol=1e-4)


def test_large_norms_at_the_start_make_a_warm_up() -> None:
    norms = 1 + 9 * np.exp(-np.arange(1000) / 50)
    schedule = refine(norms, peak=0.1).resolve(1000)
    values = schedule(np.arange(1000))
    top = int(values.argmax())
    assert 50 < top < 500
    assert values[0] < 0.05
    assert (np.diff(values[top:]) <= 1e-12).all()


@given(st.lists(st.floats(0.1, 10), min_size=14, max_size=60), st.sampled_from(["adam", "sgd"]))
def test_the_rates_follow_the_equation(norms: list[float], optimizer: str) -> None:
    w = np.array(norms) ** (-1 if optimizer == "adam" else -2)
    expected = [w[t] * w[t + 1 :].sum() / w.sum() for t in range(len(w))]
    np.testing.assert_allclose(refined_rates(w), expected, rtol=1e-9, atol=1e-15)


@given(st.lists(st.floats(0.1, 10), min_size=14, max_size=80), st.floats(1e-3, 10))
def test_the_largest_value_is_the_peak_and_the_last_is_zero(
    norms: list[float], peak: float
) -> None:
    schedule = refine(norms, peak=peak, points=10_000).resolve(1000)
    values = [schedule(i * 1000 / (len(norms) - 5)) for i in range(len(norms) - 4)]
    assert max(values) == pytest.approx(peak)
    assert values[-1] == pytest.approx(0, abs=1e-12)


def test_the_scale_of_the_norms_does_not_matter() -> None:
    norms = np.random.default_rng(0).uniform(1, 2, 200)
    a, b = refine(norms, 1.0).resolve(100), refine(norms * 1e6, 1.0).resolve(100)
    np.testing.assert_allclose(a(np.arange(100)), b(np.arange(100)), rtol=1e-9)


def test_smoothing_is_a_running_median() -> None:
    norms = np.random.default_rng(1).uniform(1, 2, 101)
    width = median_width(101, 0.1)
    smooth = smooth_norms(norms, 0.1)
    half = width // 2
    for i in range(half, 101 - half):
        assert smooth[i] == np.median(norms[i - half : i + half + 1])


def test_norms_that_vanish_are_capped_with_a_warning() -> None:
    norms = np.concatenate([np.ones(300), np.full(50, 1e-9)])
    with pytest.warns(UserWarning, match="capped"):
        schedule = refine(norms, peak=1.0, tau=0.0)
    assert np.isfinite(schedule.resolve(100)(np.arange(100))).all()


def test_a_refined_schedule_is_data() -> None:
    schedule = refine(np.linspace(2, 1, 50), peak=0.1, points=8)
    assert from_dict(schedule.to_dict()) == schedule


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda: refine([1.0] * 5, 0.1), "gradient_norms"),
        (lambda: refine([0.0] * 50, 0.1), "gradient_norms"),
        (lambda: refine([1.0] * 20 + [-1.0], 0.1), "gradient_norms[20]"),
        (lambda: refine([1.0, float("nan")] * 20, 0.1), "gradient_norms[1]"),
        (lambda: refine([1.0] * 50, float("inf")), "peak"),
        (lambda: refine([1.0] * 50, 0.1, optimizer="lion"), "optimizer"),
        (lambda: refine([1.0] * 50, 0.1, tau=0.7), "tau"),
        (lambda: refine([1.0] * 50, 0.1, points=1), "points"),
        (lambda: refine("norms", 0.1), "gradient_norms"),
    ],
)
def test_wrong_arguments_are_named(call: object, place: str) -> None:
    with pytest.raises(PlanError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.place == place
