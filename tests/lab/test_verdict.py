import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.lab.statistics import Interval, mean_interval
from trainplan.lab.verdict import (
    LEVEL,
    combine,
    decide,
    decide_exact,
    look_interval,
    nominal_level,
    null_p_values,
)

LOOKS = [(5,), (4, 8), (4, 8, 16), (5, 10, 20), (3, 4, 5, 6)]


def run_sequentially(differences: np.ndarray, looks: tuple[int, ...], margin: float) -> list[str]:
    """The verdict of each simulated study (rows), with early stopping."""
    verdicts = ["inconclusive"] * len(differences)
    for look in looks:
        for i, row in enumerate(differences):
            if verdicts[i] == "inconclusive":
                verdicts[i] = decide(look_interval(row[:look], looks), margin)
    return verdicts


@pytest.mark.parametrize("looks", LOOKS)
@pytest.mark.parametrize("margin", [0.0, 0.7])
def test_false_verdicts_stay_rare_when_the_advantage_is_just_the_margin(looks, margin):
    random = np.random.default_rng(7)
    differences = margin + random.standard_normal((1500, looks[-1]))
    verdicts = run_sequentially(differences, looks, margin)
    for false in ("reproduced", "contradicted"):
        share = verdicts.count(false) / len(verdicts)
        assert share < LEVEL + 3 * math.sqrt(LEVEL / len(verdicts))
        assert share > LEVEL / 3  # nor is the rule needlessly timid


@pytest.mark.parametrize("looks", LOOKS)
def test_the_simulated_level_holds_on_other_draws(looks):
    smallest = null_p_values(looks, draws=200_000, seed=1).min(axis=0)
    assert (smallest < nominal_level(looks)).mean() == pytest.approx(LEVEL, abs=0.0015)


@pytest.mark.parametrize("looks", LOOKS)
def test_a_look_uses_up_some_of_the_error(looks):
    level = nominal_level(looks)
    assert LEVEL / len(looks) <= level <= LEVEL
    assert (level < LEVEL) == (len(looks) > 1)


def test_a_real_advantage_is_found_and_its_absence_too():
    random = np.random.default_rng(3)
    noise = 0.3 * random.standard_normal((200, 16))
    assert run_sequentially(1 + noise, (4, 8, 16), 0.5).count("reproduced") > 180
    assert run_sequentially(0 + noise, (4, 8, 16), 0.5).count("contradicted") > 180


def test_with_one_look_the_interval_is_the_usual_one():
    values = [0.3, 0.1, 0.25, 0.4, 0.2]
    assert look_interval(values, (5,)) == mean_interval(values)


def test_more_deciding_claims_make_it_harder_to_contradict_and_not_to_reproduce():
    values = [0.3, 0.1, 0.25, 0.4, 0.2]
    one, three = look_interval(values, (5, 10)), look_interval(values, (5, 10), deciding=3)
    assert three.low == one.low
    assert three.high > one.high


def test_a_diverged_run_leaves_the_study_inconclusive():
    assert decide(look_interval([1.0, math.inf, 1.0], (3,)), 0.0) == "inconclusive"
    assert decide_exact(math.nan, 0.0) == "inconclusive"


def test_the_rule_speaks_at_its_looks_only():
    with pytest.raises(PlanError, match="there are 4 seeds"):
        look_interval([1.0] * 4, (5, 10))
    for looks in [(), (1, 5), (5, 5), (10, 5)]:
        with pytest.raises(PlanError, match="cannot look then"):
            nominal_level(looks)


@given(
    st.lists(st.floats(-1, 1), min_size=8, max_size=8),
    st.floats(-0.5, 0.5),
    st.floats(0.01, 100),
)
def test_a_verdict_does_not_depend_on_the_unit(values, margin, unit):
    interval = look_interval(values, (4, 8))
    scaled = look_interval([unit * v for v in values], (4, 8))
    nearest_end = min(abs(interval.low - margin), abs(interval.high - margin))
    if nearest_end > 1e-9:
        assert decide(scaled, unit * margin) == decide(interval, margin)


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6), st.floats(-0.5, 0.5))
def test_the_opposite_claim_gets_the_opposite_verdict(values, margin):
    opposite = {
        "reproduced": "contradicted",
        "contradicted": "reproduced",
        "inconclusive": "inconclusive",
    }
    mine = decide(look_interval(values, (6,)), margin)
    other = decide(look_interval([-v for v in values], (6,)), -margin)
    assert other == opposite[mine]


def test_an_interval_that_touches_the_margin_decides_nothing():
    assert decide(Interval(0.2, 0.1, 0.3), margin=0.1) == "inconclusive"
    assert decide(Interval(0.2, 0.1, 0.3), margin=0.3) == "inconclusive"


def test_an_exact_claim_may_be_met_with_equality():
    assert decide_exact(0.1, margin=0.1) == "reproduced"
    assert decide_exact(0.0999, margin=0.1) == "contradicted"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["reproduced", "reproduced"], "reproduced"),
        (["reproduced", "inconclusive"], "inconclusive"),
        (["reproduced", "contradicted"], "contradicted"),
        (["inconclusive", "contradicted"], "contradicted"),
    ],
)
def test_a_study_needs_all_its_claims_and_fails_with_one(verdicts, expected):
    assert combine(verdicts) == expected
    with pytest.raises(ValueError, match="at least one claim"):
        combine([])
