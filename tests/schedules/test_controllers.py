"""Reduce-on-plateau does what PyTorch's own does, step by step, and goes on after a restart."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainplan.errors import PlanError
from trainplan.schedules import Controller, ReduceOnPlateau

settings_ = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.sampled_from([0.1, 0.5, 0.9]),
        "patience": st.integers(0, 3),
        "threshold": st.sampled_from([0.0, 1e-4, 0.1]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 3),
    }
)
losses = st.lists(
    st.sampled_from([0.5, 0.9, 0.95, 1.0, 1.1, -1.0, 0.0]) | st.floats(-10, 10) | st.just(math.nan),
    max_size=40,
)


@given(settings_, losses, st.sampled_from([0.0, 1e-3, 0.03]), st.sampled_from([1e-8, 1e-2]))
def test_torch_reduces_at_the_same_observations(
    settings: dict[str, object], signals: list[float], lowest: float, eps: float
) -> None:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(()))], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, min_lr=lowest, eps=eps, **settings
    )
    ours = ReduceOnPlateau(0.1, lowest=lowest, smallest_change=eps, **settings)  # type: ignore[arg-type]
    for t, signal in enumerate(signals):
        theirs.step(signal)
        ours.observe(t, loss=signal)
        assert ours.value(t) == optimizer.param_groups[0]["lr"]


@given(settings_, losses, st.integers(0, 40))
def test_resuming_at_any_observation_changes_nothing(
    settings: dict[str, object], signals: list[float], stop: int
) -> None:
    whole = ReduceOnPlateau(0.1, **settings)  # type: ignore[arg-type]
    first = ReduceOnPlateau(0.1, **settings)  # type: ignore[arg-type]
    for signal in signals[:stop]:
        whole.observe(0, loss=signal)
        first.observe(0, loss=signal)
    second = ReduceOnPlateau(0.1, **settings)  # type: ignore[arg-type]
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    for signal in signals[stop:]:
        whole.observe(0, loss=signal)
        second.observe(0, loss=signal)
        assert second.value(0) == whole.value(0)
    assert second.state_dict() == whole.state_dict()


def test_other_signals_are_ignored() -> None:
    lr = ReduceOnPlateau(0.1, patience=0, signal="validation_loss")
    for _ in range(5):
        lr.observe(0, loss=1.0)
    assert lr.value(0) == 0.1


def test_a_signal_that_is_infinite_is_never_better() -> None:
    lr = ReduceOnPlateau(1.0, factor=0.5, patience=0)
    lr.observe(0, loss=math.inf)
    assert lr.value(0) == 0.5


def test_it_is_a_controller() -> None:
    assert isinstance(ReduceOnPlateau(0.1), Controller)


def test_settings_are_written_without_the_state() -> None:
    lr = ReduceOnPlateau(0.1, patience=3)
    lr.observe(0, loss=1.0)
    assert lr.plain() == {"reduce_on_plateau": {"initial": 0.1, "patience": 3}}
    assert lr == ReduceOnPlateau(0.1, patience=3)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"initial": math.nan}, "initial"),
        ({"factor": 1.0}, "factor"),
        ({"patience": -1}, "patience"),
        ({"patience": 1.5}, "patience"),
        ({"mode": "low"}, "mode"),
        ({"threshold_mode": "relative"}, "threshold_mode"),
        ({"signal": 3}, "signal"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], place: str) -> None:
    with pytest.raises(PlanError) as caught:
        ReduceOnPlateau(**{"initial": 0.1, **settings})  # type: ignore[arg-type]
    assert caught.value.place == place


@pytest.mark.parametrize(
    "state",
    [{}, {"value": 1.0}, {"value": "x", "best": 1, "bad": 0, "cooling": 0}, None, [1]],
)
def test_a_foreign_state_is_refused(state: object) -> None:
    with pytest.raises(PlanError, match="state"):
        ReduceOnPlateau(0.1).load_state_dict(state)  # type: ignore[arg-type]
