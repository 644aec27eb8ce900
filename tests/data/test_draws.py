"""Draws with replacement follow their weights, and depend on the position alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trainplan import PlanError
from trainplan.data import BatchSampler, Draws, Replacement
from trainplan.data.draws import alias_table

WEIGHTS = arrays(
    np.float64, st.integers(1, 60), elements=st.floats(0, 100) | st.just(0.0) | st.just(1.0)
).filter(lambda w: w.sum() > 1e-6)


@settings(max_examples=300)
@given(WEIGHTS)
def test_the_alias_table_holds_exactly_the_weights(weights):
    keep, alias = alias_table(weights)
    assert ((keep >= 0) & (keep <= 1)).all()
    chances = keep.copy()
    np.add.at(chances, alias, 1 - keep)
    assert np.allclose(chances / weights.size, weights / weights.sum(), atol=1e-12)


def test_draws_follow_the_weights():
    weights = np.array([1.0, 0.0, 2.0, 5.0])
    counts = np.bincount(Draws(4, 7, weights=weights)[:80_000], minlength=4)
    assert counts[1] == 0
    assert np.allclose(counts / 80_000, weights / 8, atol=0.006)


def test_more_than_two_to_the_24_weights_are_drawn_in_their_proportion():
    n = (1 << 24) + 2
    weights = np.ones(n)
    weights[: n // 2] = 2.0
    share = (Draws(n, weights=weights)[:50_000] >= n // 2).mean()
    assert share == pytest.approx(1 / 3, abs=0.01)


@given(st.integers(1, 2**48), st.integers(0, 100), st.integers(0, 50))
def test_a_draw_depends_on_its_position_alone(n, first, number):
    draws = Draws(n, seed=2)
    block = draws.block(first, number)
    assert ((block >= 0) & (block < n)).all()
    assert [draws[p] for p in range(first, first + number)] == block.tolist()
    assert np.array_equal(draws[np.arange(first, first + number)], block)


def test_even_draws_are_even():
    counts = np.bincount(Draws(10, seed=1)[:100_000], minlength=10)
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 30


@pytest.mark.parametrize(
    ("weights", "place"),
    [
        ([1, -1], "weights[1]"),
        ([1, float("nan")], "weights[1]"),
        ([float("inf"), 1], "weights[0]"),
        ([0, 0], "weights"),
        ([1], "weights"),
    ],
)
def test_bad_weights_are_named(weights, place):
    with pytest.raises(PlanError) as caught:
        Draws(2, weights=weights)
    assert caught.value.place == place


def test_draws_are_a_source_that_resumes():
    weights = np.arange(50.0)
    sampler = BatchSampler(Replacement(50, 8, 3, weights=weights, steps=30))
    whole = [list(batch) for batch in sampler]
    assert len(whole) == 30
    assert [x for batch in whole for x in batch] == Draws(50, 3, weights=weights)[:240].tolist()
    again = BatchSampler(Replacement(50, 8, 3, weights=weights, steps=30))
    again.load_state_dict(sampler.state_dict(step=17))
    assert [list(batch) for batch in again] == whole[17:]
    other = BatchSampler(Replacement(50, 8, 3, weights=weights[::-1], steps=30))
    with pytest.raises(PlanError, match="weights differs"):
        other.load_state_dict(sampler.state_dict(step=17))
