"""Replay takes the place of new data, is exact over time, and needs no state."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import ReplayMixer, replay_budget, replay_counts

SHARES = st.sampled_from([0.0, 0.005, 0.01, 0.05, 0.1, 1 / 3, 0.25, 0.5, 0.7, 0.999, 1.0])
SIZES = st.integers(1, 300)


@given(st.floats(0, 1e15), SHARES)
def test_replay_costs_no_compute(total, share):
    budget = replay_budget(total, share)
    assert budget.new + budget.replay == pytest.approx(total, rel=1e-15)
    assert budget.replay == pytest.approx(total * share, rel=1e-12)


@given(SIZES, SHARES, st.integers(0, 400))
def test_the_share_is_exact_to_less_than_one_example_after_any_batch(size, share, batches):
    counts = replay_counts(size, share, batches)
    assert ((counts >= 0) & (counts <= size)).all()
    exact = size * Fraction(repr(share)) * np.arange(1, batches + 1)
    assert all(-1e-8 <= float(x - n) < 1 for x, n in zip(exact, counts.cumsum(), strict=True))


@given(SIZES, SHARES, st.integers(0, 10**12), st.integers(0, 20))
def test_counts_do_not_depend_on_where_one_starts_to_count(size, share, start, batches):
    counts = replay_counts(size, share, batches, start=start)
    singly = [replay_counts(size, share, 1, start=start + i)[0] for i in range(batches)]
    assert counts.tolist() == singly


@given(SIZES, SHARES, st.integers(1, 50), st.integers(1, 50))
def test_both_data_are_read_in_order_without_a_gap(size, share, new, old):
    mixer = ReplayMixer(size, share, new, old)
    batches = [mixer.batch(i) for i in range(8)]
    assert all(batch.new.size + batch.old.size == size for batch in batches)
    for name, length in (("new", new), ("old", old)):
        read = np.concatenate([getattr(batch, name) for batch in batches])
        assert read.tolist() == [i % length for i in range(read.size)]


def test_resuming_at_any_batch_changes_nothing():
    mixer = ReplayMixer(batch_size=64, fraction=0.05, new=1000, old=77)
    whole = [mixer.batch(i) for i in range(30)]
    for start in range(30):
        again = ReplayMixer(batch_size=64, fraction=0.05, new=1000, old=77).batch(start)
        assert again.new.tolist() == whole[start].new.tolist()
        assert again.old.tolist() == whole[start].old.tolist()


def test_epochs_count_what_was_read():
    mixer = ReplayMixer(batch_size=10, fraction=0.3, new=70, old=30)
    assert mixer.epochs(10) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"fraction": 5}, "fraction"),
        ({"fraction": -0.1}, "fraction"),
        ({"fraction": float("nan")}, "fraction"),
        ({"batch_size": 0}, "batch_size"),
        ({"old": 0}, "old"),
        ({"new": 0}, "new"),
    ],
)
def test_what_cannot_be_replayed_is_named(settings, place):
    with pytest.raises(PlanError) as caught:
        ReplayMixer(**({"batch_size": 4, "fraction": 0.25, "new": 10, "old": 10} | settings))
    assert caught.value.place == place


def test_without_replay_old_data_may_be_missing():
    assert ReplayMixer(batch_size=4, fraction=0.0, new=10, old=0).batch(1).old.size == 0
    with pytest.raises(PlanError, match="below zero"):
        replay_budget(-1, 0.5)
