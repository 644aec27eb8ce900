"""Phases follow one another without gaps, and a boundary belongs to the later one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import HORIZONS, sequences
from trainplan.errors import PlanError
from trainplan.schedules import (
    Constant,
    Duration,
    Hold,
    InverseSigmoid,
    Phase,
    PowerLaw,
    Profile,
    Schedule,
    Sequence,
    Span,
    Stairs,
    Take,
)


def test_a_phase_interpolates_and_then_holds_its_end() -> None:
    phase = Phase(1.0, 3.0, 4)
    assert [phase(t) for t in (0, 1, 2, 3, 4, 5, 10**15)] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.0, 3.0]


def test_a_boundary_belongs_to_the_later_phase() -> None:
    jump = Sequence(Phase(0.0, 1.0, 10), Hold(5.0, 10), Hold(7.0))
    assert [jump(t) for t in (9, 10, 19, 20)] == [0.9, 5.0, 5.0, 7.0]


def test_the_phase_without_a_duration_takes_what_is_left() -> None:
    wsd = Sequence(Phase(0.0, 1.0, 10), Hold(), Phase(None, 0.0, 20))
    assert wsd.lengths(Span.of(100)) == [10, 70, 20]
    assert wsd.resolve(100)([9, 10, 79, 80, 90, 100]).tolist() == [0.9, 1, 1, 1, 0.5, 0]


def test_values_are_taken_from_neighbours() -> None:
    bridge = Sequence(Hold(1.0, 10), Phase(None, None, 10), Hold(3.0, 10), Phase(None, 0.0, 10))
    assert bridge([0, 10, 15, 20, 30, 35]).tolist() == [1, 1, 2, 3, 3, 1.5]


def test_a_phase_can_end_where_a_stretch_of_another_schedule_begins() -> None:
    law = PowerLaw(1.0, -0.5, cap=10.0)
    rise = Sequence(Phase(0.0, None, 4), Take(law, skip=4))
    assert rise([0, 2, 4, 16]).tolist() == pytest.approx([0, 0.25, 0.5, 0.25])


def test_until_is_a_position_and_duration_a_length() -> None:
    positions = Sequence(Hold(1.0, until=30), Hold(2.0, until=50), Hold(3.0))
    assert positions([29, 30, 49, 50]).tolist() == [1, 2, 2, 3]


def test_a_warm_up_that_is_one_step_ahead_skips_zero() -> None:
    ahead = Sequence(Phase(0.0, 1.0, 10, ahead=1), Hold())
    assert ahead(np.arange(11)).tolist() == [*(k / 10 for k in range(1, 11)), 1.0]


def test_a_take_plays_a_stretch_in_the_inner_time() -> None:
    inner = Phase(0.0, 10.0, 10)
    assert Take(inner, 5, skip=2)([0, 4, 5, 100]).tolist() == [2, 6, 7, 7]


def test_relative_durations_inside_a_take_are_shares_of_the_stretch() -> None:
    inner = Sequence(Hold(1.0, "50%"), Hold(2.0))
    assert Sequence(Take(inner, 20), Hold(3.0))([9, 10, 19, 20]).tolist() == [1, 2, 2, 3]


def test_stairs_fall_by_a_factor_each_time() -> None:
    assert Stairs(8.0, 0.5, 3)(np.arange(10)).tolist() == [8, 8, 8, 4, 4, 4, 2, 2, 2, 1]
    assert Stairs(1.0, 2.0, 1)(5000) == np.inf
    assert Stairs(1.0, 0.5, 0.3)(0.9) == 0.125


def test_power_laws_are_capped() -> None:
    law = PowerLaw(2.0, -1.0, cap=0.5)
    assert law([0, 1, 4, 8, 20]).tolist() == [0.5, 0.5, 0.5, 0.25, 0.1]
    assert [law(t) for t in (0, 1, 4, 8, 20)] == [0.5, 0.5, 0.5, 0.25, 0.1]
    assert PowerLaw(3.0, 2.0)(4) == 48


def test_inverse_sigmoids_hold_and_fall() -> None:
    falling = InverseSigmoid(0.5, 20.0)
    assert falling(0) == pytest.approx(0.5 * 20 / 21)
    assert falling(20 * np.log(20)) == pytest.approx(0.25)
    assert falling([10**6])[0] < 1e-300
    assert falling(10**6) < 1e-300


def test_a_power_law_can_count_another_unit() -> None:
    law = PowerLaw(1.0, 1.0, unit="tokens").resolve(10, tokens_per_step=100)
    assert law(3) == 300


def test_profiles_draw_lines_or_hold() -> None:
    assert Profile((0.0, 1.0, 0.0), 10)([0, 2.5, 5, 7.5, 10, 11]).tolist() == [0, 0.5, 1, 0.5, 0, 0]
    assert Profile((1.0, 2.0), 10, hold=True)([0, 4, 5, 9, 99]).tolist() == [1, 1, 2, 2, 2]


@given(sequences(), HORIZONS)
def test_a_sequence_is_its_phases_one_by_one(schedule: Schedule, horizon: int) -> None:
    assert isinstance(schedule, Sequence)
    ready = schedule.resolve(horizon)
    begin, entry = 0.0, None
    for piece, length in zip(schedule.pieces, schedule.lengths(Span.of(horizon)), strict=True):
        alone = _alone(piece, entry, length).resolve(horizon)
        if length:
            assert ready(begin) == alone(0)
            assert ready(begin + 0.4321 * length) == pytest.approx(alone(0.4321 * length))
        begin, entry = begin + length, alone(length)
    assert ready(2 * begin) == entry == pytest.approx(ready(begin), rel=1e-9, abs=1e-9)


def _alone(piece: object, entry: float | None, length: float) -> Schedule:
    """A phase outside its sequence, with what it took from its neighbours filled in."""
    lasts = Duration(length)
    if isinstance(piece, Phase):
        return replace(piece, start=entry if piece.start is None else piece.start, duration=lasts)
    if isinstance(piece, Hold):
        return replace(piece, value=entry if piece.value is None else piece.value, duration=lasts)
    assert isinstance(piece, Take)
    return replace(piece, duration=lasts)


@given(st.lists(st.floats(0, 1e6), max_size=30), sequences(), HORIZONS)
def test_the_order_of_times_does_not_matter(
    times: list[float], schedule: Schedule, horizon: int
) -> None:
    ready = schedule.resolve(horizon)
    together = ready(np.array(times))
    backwards = ready(np.array(times[::-1]))[::-1]
    assert together.tolist() == backwards.tolist()


def test_a_constant_needs_nothing() -> None:
    assert Constant(0.1)(2**53) == 0.1
    assert not Constant(0.1).needs_horizon


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Sequence, "at least one phase"),
        (lambda: Sequence(Hold(1.0), Hold(2.0)), "both take what is left"),
        (lambda: Sequence(Hold(1.0), Hold(2.0, until=5)), "cannot end at a given time"),
        (lambda: Sequence(Phase(None, 1.0, 5)), r"phases\[0\]\.start"),
        (lambda: Sequence(Phase(0.0, None, 5)), r"phases\[0\]\.end"),
        (lambda: Sequence(Hold(None, 5)), r"phases\[0\]\.value"),
        (lambda: Sequence(Phase(0.0, None, 5), Hold(None, 5)), r"phases\[0\]\.end"),
        (lambda: Sequence(Hold(1.0, 5), 3), r"phases\[1\].*not a phase"),
        (lambda: Sequence(Hold(1.0, 5, until=6)), "not both"),
        (lambda: Sequence(Hold(1.0, until=9), Hold(2.0, until=5))(0), r"phases\[1\]\.until"),
        (
            lambda: Sequence(Hold(1.0, 60), Hold(), Hold(2.0, 60)).resolve(100),
            "longer than the whole",
        ),
        (lambda: Sequence(Hold(1.0, "60%"), Hold(2.0, "60%"), Hold()).resolve(99), "longer than"),
        (lambda: Sequence(Phase(0.0, 1.0), Hold(1.0, 5))(0), r"phases\[0\]\.duration"),
        (lambda: Phase(0.0, 1.0)(0), "horizon that is not known"),
        (lambda: Phase(None, 1.0, 5)(0), "from its neighbour"),
        (lambda: Hold()(0), "goes on from the phase before"),
        (lambda: Phase(float("nan"), 1.0, 5), "start.*not a finite number"),
        (lambda: Phase(0.0, "high", 5), "end.*not a number"),
        (lambda: Phase(0.0, 1.0, -5), "duration.*cannot be negative"),
        (lambda: Stairs(1.0, 0.5, 0), "every"),
        (lambda: Stairs(1.0, 0.5, "1%").resolve(10), "shorter than one unit"),
        (lambda: Stairs(1.0, -0.5, 3), "below zero"),
        (lambda: InverseSigmoid(1.0, 0.0), "above zero"),
        (lambda: PowerLaw(1.0, -0.5), "cap"),
        (lambda: PowerLaw(0.0, 0.5), "above zero"),
        (lambda: Profile((1.0,), 3), "two values"),
        (lambda: Profile((1.0, float("inf")), 3), r"values\[1\]"),
    ],
)
def test_what_cannot_be_meant_is_refused(build: object, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        build()  # type: ignore[operator]


def test_freezing_keeps_the_past_when_the_horizon_grows() -> None:
    trunk = Sequence(Phase(0.0, 1.0, "10%"), Hold(), Phase(None, 0.0, "20%"))
    frozen = trunk.freeze(50, Span.of(100))
    assert (
        frozen.resolve(1000)(np.arange(50)).tolist() == trunk.resolve(100)(np.arange(50)).tolist()
    )
    assert frozen.resolve(1000)([800, 900, 1000]).tolist() == [1, 0.5, 0]
