"""Arithmetic on schedules is arithmetic on their values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import HORIZONS, schedules, values
from trainplan.errors import PlanError
from trainplan.schedules import (
    Constant,
    Hold,
    Phase,
    Schedule,
    Sequence,
    Stairs,
    constant,
    cosine,
    linear,
    rex,
)


def times(horizon: int) -> np.ndarray:
    return np.unique(np.linspace(0, 1.3 * horizon, 97))


@given(schedules, schedules, values, HORIZONS)
def test_arithmetic_acts_on_values(a: Schedule, b: Schedule, k: float, horizon: int) -> None:
    t = times(horizon)
    x, y = a.resolve(horizon)(t), b.resolve(horizon)(t)
    with np.errstate(over="ignore", invalid="ignore"):
        assert (a * k).resolve(horizon)(t).tolist() == pytest.approx((x * k).tolist(), rel=1e-12)
        assert (k * a).resolve(horizon)(t).tolist() == (a * k).resolve(horizon)(t).tolist()
        assert (a + b).resolve(horizon)(t).tolist() == (x + y).tolist()
        assert (a * b).resolve(horizon)(t).tolist() == (x * y).tolist()
        assert (a + k).resolve(horizon)(t).tolist() == (x + k).tolist()
    assert a.clip(-1, 1).resolve(horizon)(t).tolist() == np.clip(x, -1, 1).tolist()


@given(schedules, HORIZONS)
def test_one_time_and_many_give_the_same_values(schedule: Schedule, horizon: int) -> None:
    ready = schedule.resolve(horizon)
    bounds = [b for b in ready.curve.bounds() if b < 2 * horizon]
    t = np.unique(np.concatenate([times(horizon), bounds]))
    many = ready(t)
    one = np.array([ready(x) for x in t.tolist()])
    scale = max(1.0, float(np.abs(one).max()))
    np.testing.assert_allclose(many, one, rtol=1e-12, atol=1e-14 * scale)


@given(schedules, HORIZONS)
def test_past_its_end_a_schedule_holds_its_last_value(schedule: Schedule, horizon: int) -> None:
    ready = schedule.resolve(horizon)
    end = ready.curve.length
    if end <= 2**52:
        assert ready(2 * end + 1) == ready(2 * end + 1000) == ready.curve.last


def test_scaling_twice_is_one_scaling() -> None:
    twice = linear(1.0) * 2 * 3
    assert twice == linear(1.0) * 6
    assert repr(twice) == "linear(peak=1) * 6.0"


def test_stretching_multiplies_lengths() -> None:
    assert linear(1.0, duration=10).stretch(3)(np.arange(31)).tolist() == pytest.approx(
        linear(1.0, duration=30)(np.arange(31)).tolist()
    )
    assert linear(1.0).stretch(2).resolve(100)(50) == 0.5


def test_shifting_waits_at_the_first_value() -> None:
    late = linear(1.0, duration=10).shift(5)
    assert late([0, 5, 10, 15]).tolist() == [1, 1, 0.5, 0]
    assert linear(1.0).shift("50%").resolve(100)([0, 50, 75, 100]).tolist() == [1, 1, 0.5, 0]


def test_repeating_begins_again() -> None:
    saw = linear(1.0, duration=4).repeat()
    assert saw(np.arange(9)).tolist() == [1, 0.75, 0.5, 0.25, 1, 0.75, 0.5, 0.25, 1]
    assert saw(4 * 10**12 + 1) == 0.75


def test_repeating_a_number_of_times_ends_at_the_last_value() -> None:
    twice = linear(1.0, duration=4).repeat(times=2)
    assert twice([0, 3, 4, 7, 8, 100]).tolist() == [1, 0.25, 1, 0.25, 0, 0]
    assert [twice(t) for t in (0, 3, 4, 7, 8, 100)] == [1, 0.25, 1, 0.25, 0, 0]


def test_repeating_a_relative_schedule_shares_the_horizon() -> None:
    assert linear(1.0).repeat(times=4).resolve(40)([0, 5, 10, 39, 40]).tolist() == pytest.approx(
        [1, 0.5, 1, 0.1, 0]
    )
    assert cosine(1.0).repeat(every=10).resolve(40)([0, 5, 10]).tolist() == pytest.approx(
        [1, 0.5, 1]
    )


def test_sampling_turns_a_profile_into_steps() -> None:
    steps = linear(1.0).sample(at=[0, "50%", "75%"]).resolve(100)
    assert steps([0, 49, 50, 74, 75, 99, 100]).tolist() == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_sampling_at_even_times() -> None:
    steps = rex(1.0).sample(every="25%").resolve(8)
    smooth = rex(1.0).resolve(8)
    assert [steps(t) for t in range(9)] == [smooth(t - t % 2) for t in range(9)]


@given(st.integers(1, 40), st.integers(1, 400))
def test_samples_of_a_share_of_the_run_hit_their_times(n: int, horizon: int) -> None:
    every = f"{100 / n!r}%"
    ready = linear(1.0).sample(every=every).resolve(horizon)
    for k in range(n):
        t = k * horizon / n
        assert ready(t) == pytest.approx(1 - k / n, abs=1e-9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: constant(1.0) * float("nan"), "not a finite number"),
        (lambda: constant(1.0) * "3", "not a number"),
        (lambda: constant(1.0).clip(2, 1), "above the upper one"),
        (lambda: constant(1.0).stretch(0), "above zero"),
        (lambda: constant(1.0).stretch(float("inf")), "finite"),
        (lambda: constant(1.0).shift(-1), "cannot be negative"),
        (lambda: linear(1.0).repeat(times=0), "whole number"),
        (lambda: linear(1.0).repeat(every=0)(0), "length above zero"),
        (lambda: constant(1.0).repeat()(0), "length above zero"),
        (lambda: linear(1.0).repeat()(0), "horizon"),
        (lambda: linear(1.0).sample(), "either at or every"),
        (lambda: linear(1.0).sample(at=[1], every=1), "either at or every"),
        (lambda: linear(1.0, duration=10**9).sample(every=1e-3)(0), "too many"),
        (lambda: constant(1.0).sample(every=10)(0), "horizon"),
    ],
)
def test_what_cannot_be_meant_is_refused(build: object, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        build()  # type: ignore[operator]


def test_freezing_reaches_through_arithmetic() -> None:
    trunk = Sequence(Phase(0.0, 1.0, "10%"), Hold())
    whole = (trunk * 2 + Constant(1.0)).clip(0, 2.5) * Stairs(1.0, 0.5, 30)
    from trainplan.schedules import Span

    frozen = whole.freeze(50, Span.of(100))
    t = np.arange(50)
    assert frozen.resolve(1000)(t).tolist() == whole.resolve(100)(t).tolist()
