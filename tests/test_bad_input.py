"""Whatever is given, only a `PlanError` comes out: it names a place, the value and a remedy."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import trainplan as tp
from strategies import weird, weird_keys, weird_numbers, weird_scalars
from trainplan import schedules as ts
from trainplan.errors import PlanError
from trainplan.schedules import Duration
from trainplan.schedules.controllers import CONTROLLERS
from trainplan.schedules.registry import REGISTRY
from trainplan.schedules.shapes import SHAPES, parse_shape


def use(plan: tp.Plan) -> None:
    """Do with a plan what people do."""
    assert tp.Plan.from_yaml(plan.to_yaml()).digest == plan.digest
    tp.check(plan)
    for t in (0, 1, 7.5, 10**6):
        for value in plan.at(t).values():
            assert isinstance(value, (float, tuple))


T = TypeVar("T")


def attempt(call: Callable[[], T], source: str = "") -> T | None:
    """What a call gives, or None if it refuses with an error that names its place."""
    try:
        return call()
    except PlanError as error:
        check(error, source)
        return None


def check(error: PlanError, source: str) -> None:
    assert error.problem
    assert error.place.startswith(source), str(error)


def try_out(plain: Any, source: str) -> None:
    """Read a plan and use it."""
    plan = attempt(lambda: tp.Plan.from_dict(plain, source="plan.yaml"), source)
    if plan is not None:
        attempt(lambda: use(plan), "")


@settings(max_examples=300)
@given(st.text(alphabet="lrpeakhsod:{}[],-\n 0123456789.%#&*!'\"|>", max_size=60))
@example("lr: {cosine: {peak: 1}}\nlr: 2")
@example("? [a]\n: 1")
@example("lr: !!binary aGk=")
@example("lr: 0x10")
@example("lr: 1_000.5")
@example("lr: 2020-01-01")
@example("lr: |\n  1")
@example("'': 1")
@example("%YAML 1.1\n---\nlr: 1")
@example("%YAML 9.9\n---\nlr: 1")
@example("\ufefflr: 1")
@example("lr: \ud800")
@example("lr: '\\")
def test_any_text_is_a_plan_or_a_plan_error(text: str) -> None:
    attempt(lambda: tp.Plan.from_yaml(text, source="plan.yaml"), "plan.yaml")


@settings(max_examples=300)
@given(st.dictionaries(weird_keys, weird, min_size=1, max_size=4))
def test_any_dictionary_is_a_plan_or_a_plan_error(plain: dict[Any, Any]) -> None:
    try_out(plain, "plan.yaml")


@settings(max_examples=300)
@given(weird)
def test_anything_is_a_knob_or_a_plan_error(plain: Any) -> None:
    try_out({"horizon": 1000, "lr": plain}, "plan.yaml: lr")


@pytest.mark.parametrize("name", sorted(REGISTRY))
@settings(max_examples=80)
@given(data=st.data())
def test_any_parameters_of_a_schedule_are_taken_or_refused(name: str, data: st.DataObject) -> None:
    parameters = list(REGISTRY[name].parameters)
    usual = st.sampled_from([0.1, 1, 10, "10%", "linear", [1, 2], [[1, 2]], {"cosine": 1}])
    given_ = data.draw(
        st.dictionaries(st.sampled_from(parameters), usual | usual | weird_scalars | weird)
    )
    try_out({"horizon": 1000, "lr": {name: given_}}, f"plan.yaml: lr.{name}")


SETTINGS = st.sampled_from(
    [
        "power",
        "ratio",
        "half_life",
        "d",
        "p",
        "phi",
        "at",
        "factor",
        "cycles",
        "gamma",
        "alpha",
        "initial",
        "mode",
        "patience",
        "threshold",
        "cooldown",
        "lowest",
    ]
)


@pytest.mark.parametrize("name", ["reduce_on_plateau", *sorted(SHAPES)])
@settings(max_examples=80)
@given(
    given_=weird_scalars
    | st.dictionaries(SETTINGS, st.sampled_from([0.1, 1, 10, [0.5], [0.2, 0.3]]) | weird_scalars)
)
def test_any_settings_of_shapes_and_controllers_are_taken_or_refused(
    name: str, given_: Any
) -> None:
    phase = {"start": 0.5, "end": 0.1, "duration": "10%", "shape": {name: given_}}
    knob = {name: given_} if name in CONTROLLERS else {"phases": [phase]}
    try_out({"horizon": 1000, "lr": knob}, "plan.yaml: lr")


@given(weird)
@example("1" * 5000)
@example("1e" + "9" * 50)
@example("1_")
@example("\N{ARABIC-INDIC DIGIT ONE} steps")
def test_any_duration_is_read_or_refused(value: Any) -> None:
    duration = attempt(lambda: Duration.parse(value))
    if duration is not None:
        assert 0 <= duration.amount <= 2**53
        assert math.isfinite(duration.amount)
        assert Duration.parse(duration.plain()) == duration


@given(weird)
def test_any_shape_is_read_or_refused(value: Any) -> None:
    shape = attempt(lambda: parse_shape(value))
    if shape is not None:
        assert parse_shape(json.loads(json.dumps(shape.plain()))) == shape


@given(weird_numbers)
def test_any_time_gives_a_value_or_is_refused(t: Any) -> None:
    value = attempt(lambda: ts.wsd(0.1, warmup=10).resolve(100)(t), "t")
    assert value is None or 0 <= value <= 0.1


@given(weird_scalars, weird_scalars)
def test_any_change_of_a_plan_is_made_or_refused(at: Any, other: Any) -> None:
    plan = tp.Plan(horizon=100, lr=ts.wsd(0.1, warmup=10))
    for change in (
        lambda: plan.extend(at=at, horizon=other),
        lambda: plan.branch(at=at, decay=other),
        lambda: plan.branch(at=at, lr=other, horizon=200),
        lambda: plan.branch(at=50, decay=10, end=other),
        lambda: plan.replace(unit=other),
        lambda: plan.replace(steps_per_epoch=other),
    ):
        changed = attempt(change)
        if changed is not None:
            attempt(lambda plan=changed: plan.at(0))


@pytest.mark.parametrize("steps", [2**53, 2**53 - 1])
def test_the_longest_run_that_can_be_counted_still_ends_exactly(steps: int) -> None:
    schedule = ts.linear(1.0).resolve(steps)
    assert schedule(steps) == 0
    assert schedule(steps - 1) == pytest.approx(1 / steps)
    assert schedule(np.array([steps - 1]))[0] == pytest.approx(1 / steps)


def test_messages_hold_place_value_and_remedy_and_stay_short() -> None:
    with pytest.raises(PlanError) as caught:
        tp.Plan.from_yaml("lr: {cosin: {peak: 1}}", source="plan.yaml")
    text = str(caught.value)
    assert text == "plan.yaml: lr: unknown schedule (got 'cosin'). Did you mean 'cosine'?"
    with pytest.raises(PlanError) as caught:
        tp.Plan.from_dict({"lr": ["x" * 10_000]})
    assert len(str(caught.value)) < 300


def test_errors_survive_pickling_and_nesting() -> None:
    error = PlanError("wrong", place="a", value=None, remedy="Do it right")
    assert (
        str(pickle.loads(pickle.dumps(error))) == str(error) == "a: wrong (got None). Do it right"
    )
    assert str(pickle.loads(pickle.dumps(PlanError("wrong")))) == "wrong"
    assert error.inside("b").place == "b.a"
    assert error.inside("plan.yaml: ").place == "plan.yaml: a"
    assert PlanError("x", place="[1]").inside("b").place == "b[1]"
