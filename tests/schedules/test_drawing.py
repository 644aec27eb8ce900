"""A schedule can be looked at, in a line of text or a plot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import HORIZONS, schedules
from trainplan import schedules as ts
from trainplan.errors import PlanError
from trainplan.schedules import Schedule
from trainplan.schedules.drawing import blocks


def test_a_line_falls_through_all_blocks() -> None:
    assert ts.linear(1.0).sparkline(100, width=8) == "█▇▆▅▄▃▂▁"
    assert ts.linear(1.0, duration=10).sparkline(width=8) == "█▇▆▅▄▃▂▁"


def test_a_constant_is_a_level_line() -> None:
    assert ts.constant(0.3).sparkline(100, width=5) == "▄▄▄▄▄"


@given(schedules, HORIZONS, st.integers(2, 80))
def test_any_schedule_fills_its_line(schedule: Schedule, horizon: int, width: int) -> None:
    line = schedule.sparkline(horizon, width)
    assert len(line) == width
    assert set(line) <= set("▁▂▃▄▅▆▇█")


def test_the_highest_and_lowest_values_get_the_highest_and_lowest_blocks() -> None:
    assert blocks([3.0, -1.0, 1.0]) == "█▁▅" or blocks([3.0, -1.0, 1.0]) == "█▁▄"


def test_without_a_length_there_is_nothing_to_draw() -> None:
    with pytest.raises(PlanError, match="horizon"):
        ts.constant(0.1).sparkline()


def test_a_plot_has_the_values_on_its_axes() -> None:
    pytest.importorskip("matplotlib")
    axes = ts.cosine(0.1).plot(1000, label="cosine")
    (line,) = axes.get_lines()
    x, y = line.get_data()
    assert (x[0], x[-1]) == (0, 1000)
    assert y.tolist() == ts.cosine(0.1).resolve(1000)(x).tolist()
    assert ts.linear(0.2).plot(1000, ax=axes) is axes
    assert len(axes.get_lines()) == 2
