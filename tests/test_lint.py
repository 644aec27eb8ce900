"""The linter finds what people get wrong, says what to do, and is silent about good plans."""

from __future__ import annotations

import pytest
from hypothesis import given

import trainplan as tp
from strategies import HORIZONS, schedules
from trainplan import schedules as ts
from trainplan.schedules import Schedule


def found(plan: tp.Plan) -> list[tuple[str, str]]:
    return [(finding.level, finding.place) for finding in tp.check(plan)]


def messages(plan: tp.Plan) -> str:
    return "\n".join(map(str, tp.check(plan)))


GOOD = {
    "wsd": ts.wsd(3e-4, warmup="2%", decay="20%", shape="1-sqrt", end=0.0, skip_zero=True),
    "cosine": ts.cosine(3e-4, end="10%", warmup=100, skip_zero=True),
    "cosine without warm-up": ts.cosine(3e-4),
    "linear": ts.linear(3e-4),
    "rex": ts.rex(3e-4, warmup="1%", skip_zero=True),
    "step": ts.step(0.1, at=["50%", "75%"]),
    "wsd_s": ts.wsd_s(3e-4, windows=[("20%", "25%"), ("90%", "100%")], shape="linear", end=0.0),
    "cyclic": ts.cyclic_cosine(3e-4, cycles=4, end="1%"),
    "one_cycle": ts.one_cycle(0.1),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_plan_has_no_findings(name: str) -> None:
    plan = tp.Plan(horizon=20_000, lr=GOOD[name], weight_decay=0.1, betas=(0.9, 0.95))
    assert tp.check(plan) == []
    assert tp.check(plan.replace(horizon=2 * 10**9, unit="tokens", tokens_per_step=10**5)) == []


def test_a_plan_without_a_horizon_and_without_need_of_one_is_fine() -> None:
    assert tp.check(tp.Plan(lr=ts.constant(0.1), momentum=0.9)) == []


def test_the_decay_begins_before_the_warm_up_ends() -> None:
    plan = tp.Plan(horizon=1000, lr=ts.wsd(1e-3, warmup="80%", decay="30%"))
    assert found(plan) == [("error", "lr")]
    text = messages(plan)
    assert "decay ('30%') begins at 700, before the warm-up ('80%') ends at 800" in text
    assert "Shorten one of them" in text


def test_percentages_do_not_add_up() -> None:
    phases = [ts.Hold(1.0, "60%"), ts.Hold(2.0), ts.Hold(3.0, "50%")]
    plan = tp.Plan(horizon=1000, mask_rate=ts.Sequence(*phases))
    assert found(plan) == [("error", "mask_rate.phases")]
    assert "(60%, the rest, 50%) last 1100, longer than the whole, 1000" in messages(plan)
    under = tp.Plan(horizon=1000, lr=ts.Sequence(ts.Hold(1.0, "30%"), ts.Phase(1.0, 0.1, "30%")))
    assert [finding.level for finding in tp.check(under)] == ["note"]
    assert "ends at 600 and holds 0.1 until 1000" in messages(under)


def test_a_relative_duration_without_a_horizon() -> None:
    plan = tp.Plan(lr=ts.wsd(1e-3, warmup="2%"))
    assert [finding.level for finding in tp.check(plan)] == ["error"]
    assert "horizon" in messages(plan)
    rates = tp.Plan(horizon=100, lr=ts.linear(1e-3, warmup="2B tokens"))
    assert "tokens_per_step" in messages(rates)


def test_a_rate_never_decays_though_the_horizon_ends() -> None:
    plan = tp.Plan(horizon=1000, lr=ts.constant(1e-3))
    assert found(plan) == [("warning", "lr")]
    assert "never decays, although the horizon ends" in messages(plan)
    assert tp.check(tp.Plan(horizon=1000, weight_decay=0.1)) == []


def test_the_first_update_is_made_at_rate_zero() -> None:
    plan = tp.Plan(horizon=1000, lr=ts.linear(1e-3, warmup=10))
    assert found(plan) == [("warning", "lr")]
    assert "changes nothing" in messages(plan)
    assert "skip_zero=True" in messages(plan)


def test_the_peak_is_never_reached() -> None:
    plan = tp.Plan(horizon=100, lr=ts.wsdc(1e-3, 200, 50, 50))
    assert "the peak 0.001 is never reached: the highest value used is 0.000495" in messages(plan)


def test_phases_past_the_horizon() -> None:
    cut = tp.Plan(horizon=100, lr=ts.wsdc(1e-3, 0, 50, 100, tail=10))
    assert "its last phase is cut off" in messages(cut) or "never reached" in messages(cut)
    lost = tp.Plan(horizon=100, lr=ts.stable_then_decay(1e-3, 200, 100))
    assert "a phase begins at 200, after the run has ended, and is never reached" in messages(lost)
    only = tp.Plan(horizon=100, lr=ts.linear(1e-3, duration=150))
    assert "the schedule lasts 150 steps, the run 100: its last phase is cut off" in messages(only)


def test_a_phase_without_a_step() -> None:
    short = tp.Plan(horizon=50, lr=ts.wsd(1e-3, warmup="1%", decay="20%"))
    assert ("warning", "lr.phases[0]") in found(short)
    full = tp.Plan(horizon=100, lr=ts.wsd(1e-3, warmup=80, decay="20%"))
    assert ("note", "lr.phases[1]") in found(full)


def test_a_rate_that_is_zero_for_the_rest_of_the_run() -> None:
    plan = tp.Plan(horizon=1000, lr=ts.linear(1e-3, duration=600))
    assert "the last 400 steps change nothing" in messages(plan)


def test_a_beta_that_rises_early_breaks_adam() -> None:
    rising = tp.Plan(horizon=1000, lr=ts.linear(1e-3), betas=(ts.linear(0.9, 0.99), 0.999))
    assert found(rising) == [("warning", "betas[0]")]
    assert "bias correction" in messages(rising)
    falling = rising.replace(betas=(ts.linear(0.95, 0.9), 0.999))
    assert tp.check(falling) == []


def test_parts_of_a_knob_are_told_apart() -> None:
    plan = tp.Plan(lr=1e-3, betas=(0.9, ts.cosine(0.999)))
    assert all(finding.place.startswith("betas[1]") for finding in tp.check(plan))
    assert tp.check(plan)


@given(schedules, HORIZONS)
def test_any_plan_can_be_checked_and_every_finding_has_a_message(
    schedule: Schedule, horizon: int
) -> None:
    for finding in tp.check(tp.Plan(horizon=horizon, lr=schedule, mask_rate=schedule)):
        assert finding.level in {"error", "warning", "note"}
        assert finding.place.split(".")[0].split("[")[0] in {"lr", "mask_rate"}
        assert finding.message
        assert finding.remedy


@pytest.mark.parametrize("unit", ["tokens", "samples", "epochs"])
def test_plans_in_other_units_can_be_checked(unit: str) -> None:
    plan = tp.Plan(horizon=3, unit=unit, lr=ts.cosine(0.1))
    assert tp.check(plan) == []
