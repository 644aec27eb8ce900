"""Durations are read as people write them, and measured exactly."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainplan.errors import PlanError
from trainplan.schedules import Duration, Span, linear


@pytest.mark.parametrize(
    ("written", "amount", "unit"),
    [
        (2000, 2000, ""),
        (0, 0, ""),
        (2.5, 2.5, ""),
        ("2000", 2000, ""),
        ("2_000 steps", 2000, "steps"),
        ("10%", 10, "%"),
        ("12.5 %", 12.5, "%"),
        ("2B tokens", 2 * 10**9, "tokens"),
        ("1.5e9 tokens", 1_500_000_000, "tokens"),
        ("0.3B tokens", 300_000_000, "tokens"),
        ("3 epochs", 3, "epochs"),
        ("1 epoch", 1, "epochs"),
        ("10k samples", 10_000, "samples"),
        ("2M", 2_000_000, ""),
        (".5 epochs", 0.5, "epochs"),
    ],
)
def test_durations_are_read_as_written(written: object, amount: float, unit: str) -> None:
    assert Duration.parse(written) == Duration(amount, unit)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("-5", "not negative"),
        (-5, "cannot be negative"),
        (math.nan, "finite"),
        (math.inf, "finite"),
        ("inf", "not a duration"),
        ("nan%", "not a duration"),
        ("101%", "more than 100 %"),
        ("3 parsecs", "unknown unit"),
        ("3 token per step", "not a duration"),
        ("2 Btokens", "not a duration|2B tokens"),
        ("stepz", "not a duration"),
        ("5 stepz", "Did you mean 'steps'"),
        ("1e400", "longer than 2"),
        (2**53 + 1, "longer than 2"),
        (True, "not a duration"),
        (None, "not a duration"),
        ([1], "not a duration"),
        ("", "not a duration"),
        ("%", "not a duration"),
    ],
)
def test_what_is_no_duration_is_refused(written: object, message: str) -> None:
    if written == "2 Btokens":
        assert Duration.parse(written) == Duration(2 * 10**9, "tokens")
        return
    with pytest.raises(PlanError, match=message):
        Duration.parse(written)


@given(st.integers(0, 100), st.integers(1, 10**12))
def test_a_percentage_of_whole_steps_is_cut_down_exactly(percent: int, horizon: int) -> None:
    span = Span.of(horizon)
    assert span.measure(Duration.parse(f"{percent}%")) == percent * horizon // 100


@given(st.integers(0, 2**53) | st.floats(0, 2**53))
def test_durations_are_written_as_they_are_read(amount: float) -> None:
    for unit in ("", " steps", " tokens", " epochs"):
        duration = Duration.parse(f"{amount!r}{unit}")
        assert Duration.parse(duration.plain()) == duration


def test_decimal_percentages_mean_the_decimal_number() -> None:
    # 0.1 + 0.2 style surprises: 0.07 * 100 is 7.000000000000001 in floating point.
    assert Span.of(100).measure(Duration.parse("7%")) == 7
    assert Span.of(30).measure(Duration.parse("10%")) == 3
    assert Span.of(1000).measure(Duration.parse("0.7%")) == 7


def test_a_horizon_that_is_not_whole_keeps_fractions() -> None:
    assert Span.of(2.5, "epochs").measure(Duration.parse("10%")) == 0.25
    assert Span.of(10.0).measure(Duration.parse("25%")) == 2
    assert Span.of(3, "epochs").measure(Duration.parse("50%")) == 1.5


def test_units_are_converted_with_known_rates() -> None:
    rates = {"steps_per_epoch": 100, "tokens_per_step": 2048, "samples_per_step": 8}
    steps = Span.of(1000, "steps", rates)
    assert steps.measure(Duration.parse("3 epochs")) == 300
    assert steps.measure(Duration.parse("1M tokens")) == 10**6 // 2048
    assert steps.measure(Duration.parse("80 samples")) == 10
    epochs = Span.of(10, "epochs", rates)
    assert epochs.measure(Duration.parse("50 steps")) == 0.5
    tokens = Span.of(10**6, "tokens", rates)
    assert tokens.measure(Duration.parse("1 epoch")) == 204_800
    assert tokens.measure(Duration.parse("16 samples")) == 4096


def test_a_missing_rate_is_named() -> None:
    with pytest.raises(PlanError, match=r"Give tokens_per_step=\.\.\."):
        linear(1.0, warmup="2B tokens").resolve(1000)
    with pytest.raises(PlanError, match="steps_per_epoch"):
        linear(1.0, warmup="2 epochs").resolve(1000)


@pytest.mark.parametrize("horizon", [0, -1, math.nan, math.inf, True, "100", None, 2**53 + 2])
def test_a_bad_horizon_is_refused(horizon: object) -> None:
    with pytest.raises(PlanError, match="horizon") as caught:
        linear(1.0).resolve(horizon)  # type: ignore[arg-type]
    assert caught.value.place == "horizon"


def test_unknown_rates_and_units_suggest_the_nearest() -> None:
    with pytest.raises(PlanError, match="Did you mean 'tokens_per_step'"):
        linear(1.0).resolve(10, tokens_per_steps=3)
    with pytest.raises(PlanError, match="Did you mean 'tokens'"):
        linear(1.0).resolve(10, unit="token")
    with pytest.raises(PlanError, match="above zero"):
        linear(1.0).resolve(10, tokens_per_step=0)


def test_a_relative_duration_without_a_horizon_says_what_to_do() -> None:
    with pytest.raises(PlanError, match=r"needs a horizon.*resolve"):
        linear(1.0, warmup="10%")(3)
