"""A schedule is data: it prints as what makes it, and comes back the same from a file."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given

from strategies import HORIZONS, SHORT_FORMS, schedules
from trainplan import schedules as ts
from trainplan.errors import PlanError
from trainplan.schedules import Schedule, from_dict
from trainplan.schedules.shapes import Linear


@given(schedules)
def test_repr_reconstructs(schedule: Schedule) -> None:
    assert eval(repr(schedule), vars(ts)) == schedule


@given(schedules, HORIZONS)
def test_resolved_schedules_are_written_too(schedule: Schedule, horizon: int) -> None:
    ready = schedule.resolve(horizon, unit="tokens", tokens_per_step=8)
    assert eval(repr(ready), vars(ts)) == ready
    assert from_dict(json.loads(json.dumps(ready.to_dict()))) == ready


@given(schedules)
def test_dictionaries_come_back_equal(schedule: Schedule) -> None:
    plain = json.loads(json.dumps(schedule.to_dict(), allow_nan=False))
    back = from_dict(plain)
    assert back == schedule
    assert hash(back) == hash(schedule)
    assert back.digest == schedule.digest
    assert back.to_dict() == schedule.to_dict()


@given(schedules, schedules)
def test_equal_schedules_and_only_they_share_a_digest(a: Schedule, b: Schedule) -> None:
    if a == b:
        assert a.digest == b.digest
    elif a.to_dict() != b.to_dict() and not isinstance(a, ts.Named):
        assert a.digest != b.digest


@given(schedules, HORIZONS)
def test_copies_and_pickles_are_equal(schedule: Schedule, horizon: int) -> None:
    ready = schedule.resolve(horizon)
    for twin in (copy.deepcopy(ready), pickle.loads(pickle.dumps(ready))):
        assert twin == ready
        assert twin(7) == ready(7)


PINNED = {
    "cosine": (ts.cosine(3e-4, end="10%", warmup="2%"), "581f72adeb7cb450"),
    "wsd": (ts.wsd(3e-4, "2%", "20%", shape="1-sqrt", end=0.0), "21a31a448ebc5a67"),
    "phases": (ts.Sequence(ts.Phase(0.0, 1.0, 10), ts.Hold()) * 0.5, "e8d572ccb530255b"),
    "resolved": (ts.rex(0.1).resolve(1000), "013eb5771c4406b3"),
}


@pytest.mark.parametrize("name", PINNED)
def test_digests_do_not_change_between_releases(name: str) -> None:
    schedule, digest = PINNED[name]
    assert schedule.digest == digest


def test_digests_include_the_defaults() -> None:
    assert ts.cosine(1.0).digest == ts.cosine(1.0, end=0.0, warmup=0).digest
    assert ts.cosine(1).digest == ts.cosine(1.0).digest == ts.cosine(np.float64(1.0)).digest
    assert ts.cosine(1.0).digest != ts.cosine(1.0, end=0.1).digest


def test_whole_and_floating_numbers_mean_the_same() -> None:
    two = ts.Phase(1.0, 0.0, 10, {"polynomial": 2})
    assert two == ts.Phase(1, 0, 10.0, {"polynomial": 2.0})
    assert two.digest == ts.Phase(1, 0, 10.0, {"polynomial": 2.0}).digest
    assert ts.rex(1.0).resolve(10) == ts.rex(1.0).resolve(10.0)
    a, b = ts.rex(1).resolve(9, steps_per_epoch=3), ts.rex(1).resolve(9, steps_per_epoch=3.0)
    assert a == b
    assert a.digest == b.digest


def test_lists_arrays_and_tuples_are_the_same_argument() -> None:
    assert (
        ts.step(1.0, at=[30, 60])
        == ts.step(1.0, at=(30, 60))
        == ts.step(1.0, at=np.array([30, 60]))
    )


def test_positions_and_names_are_the_same_argument() -> None:
    assert ts.cosine(1.0, 0.1, 10) == ts.cosine(peak=1.0, end=0.1, warmup=10)
    assert from_dict({"cosine": [1.0, 0.1, 10]}) == ts.cosine(1.0, 0.1, 10)


def test_schedules_cannot_be_changed() -> None:
    phase = ts.Phase(1.0, 0.0, 10)
    with pytest.raises(AttributeError):
        phase.start = 2.0  # type: ignore[misc]


@pytest.mark.parametrize("name", SHORT_FORMS)
def test_short_forms_are_understood(name: str) -> None:
    plain, schedule = SHORT_FORMS[name]
    assert from_dict(plain) == schedule


@pytest.mark.parametrize(
    ("plain", "place", "message"),
    [
        ({"cosin": 0.1}, "", "Did you mean 'cosine'"),
        ({"cosine": {"peek": 0.1}}, "cosine.peek", "Did you mean 'peak'"),
        ({"cosine": {"peak": "x"}}, "cosine.peak", "not a number"),
        ({"cosine": {}}, "cosine", "It needs: peak"),
        ({"cosine": {"peak": 1, "warmup": "5 parsecs"}}, "cosine.warmup", "unknown unit"),
        ({"phases": {"start": 1}}, "phases", "list of phases"),
        ({"phases": [{"start": 0, "end": 1, "duration": -1}]}, "phases[0].duration", "negative"),
        ({"phases": [{"start": 0, "end": 1, "length": 1}]}, "phases[0].length", "no such field"),
        ({"phases": [{"hold": 1}, {"hold": 2}]}, "phases[1].duration", "both take what is left"),
        ({"phases": [3]}, "phases[0]", "not a phase"),
        ({"phases": [{"hold": [1, 2, 3, 4]}]}, "phases[0].hold", "too many values"),
        ({"sum": [1, {"product": [2]}]}, "sum[1].product", "two schedules"),
        ({"scaled": {"schedule": {"rexx": 1}, "factor": 2}}, "scaled.schedule", "'rex'"),
        ({"resolve": {"schedule": 1}}, "resolve", "horizon"),
        ({"reduce_on_plateau": 1}, "", "cannot stand inside"),
        ({"a": 1, "b": 2}, "", "not a schedule"),
        ([], "", "not a schedule"),
        (None, "", "not a schedule"),
        (True, "", "not a schedule"),
        ("cosine", "", "not a schedule"),
    ],
)
def test_errors_name_the_place(plain: object, place: str, message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        from_dict(plain)
    assert caught.value.place == place


@pytest.mark.parametrize("shape", [{"polynomial": 2}, {"polynomial": {"power": 2.0}}])
def test_a_shape_is_the_same_however_it_is_written(shape: dict[str, object]) -> None:
    written, built = (ts.wsd(1.0, decay="10%", shape=s) for s in (shape, ts.Polynomial(2)))
    assert written == built
    assert written.digest == built.digest
    assert ts.wsd(1.0, shape=Linear()).digest == ts.wsd(1.0, shape="linear").digest
