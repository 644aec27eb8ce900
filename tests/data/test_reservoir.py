"""Buffers keep a fair sample of what they were shown, and go on from their state."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import BalancedReservoir, Reservoir


def test_everything_seen_is_kept_with_the_same_probability():
    kept = np.zeros(40)
    for seed in range(4000):
        buffer = Reservoir(10, seed)
        buffer.add(range(25))
        buffer.add(range(25, 40))
        kept[buffer.held] += 1
    # 1000 expected, with a standard deviation of 27
    assert np.abs(kept - 1000).max() < 120
    assert kept.sum() == 40_000


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(1, 20))
def test_how_a_stream_is_cut_into_batches_does_not_matter(parts, capacity):
    stream, whole, cut = list(range(sum(parts))), Reservoir(capacity, 5), Reservoir(capacity, 5)
    whole.add(stream)
    for part in parts:
        cut.add(stream[:part])
        stream = stream[part:]
    assert whole.state_dict() == cut.state_dict()
    assert len(whole) == min(capacity, sum(parts))
    assert len(set(whole.held.tolist())) == len(whole)


@pytest.mark.parametrize("seed", range(5))
def test_rare_classes_are_kept_whole_and_others_alike(seed):
    random = np.random.default_rng(seed)
    classes = random.permutation([0] * 900 + [1] * 90 + [2] * 6)
    buffer = BalancedReservoir(60, seed)
    for begin in range(0, len(classes), 50):
        buffer.add(range(begin, min(begin + 50, len(classes))), classes[begin : begin + 50])
    counts = np.bincount(buffer.classes)
    assert counts[2] == 6
    assert counts[:2].tolist() == [27, 27]
    assert (classes[buffer.held] == buffer.classes).all()


def test_within_a_large_class_the_sample_is_even():
    kept = np.zeros(60)
    for seed in range(1500):
        buffer = BalancedReservoir(12, seed)
        buffer.add(range(60), [k % 2 for k in range(60)])
        kept[buffer.held] += 1
    assert np.abs(kept[:20].sum() - kept[-20:].sum()) < 0.06 * kept.sum()


@pytest.mark.parametrize("kind", [Reservoir, BalancedReservoir])
def test_a_buffer_goes_on_from_its_state(kind):
    def feed(buffer, begin, end):
        classes = ([k % 3 for k in range(begin, end)],) if kind is BalancedReservoir else ()
        buffer.add(range(begin, end), *classes)
        return buffer.sample(4).tolist()

    whole, again = kind(10, 3), kind(10, 3)
    feed(whole, 0, 37)
    again.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert feed(whole, 37, 90) == feed(again, 37, 90)
    assert whole.state_dict() == again.state_dict()


def test_samples_differ_from_draw_to_draw_and_hold_nothing_twice():
    buffer = Reservoir(50)
    buffer.add(range(50))
    draws = [buffer.sample(10).tolist() for _ in range(20)]
    assert all(len(set(draw)) == 10 for draw in draws)
    assert len({tuple(draw) for draw in draws}) == 20
    assert len(buffer.sample(80)) == 50


def test_what_does_not_fit_is_refused():
    with pytest.raises(PlanError, match="as many classes"):
        BalancedReservoir(3).add([1, 2], [0])
    large = Reservoir(5)
    large.add(range(5))
    with pytest.raises(PlanError, match="capacity=5"):
        Reservoir(3).load_state_dict(large.state_dict())
    with pytest.raises(PlanError, match="not the state"):
        BalancedReservoir(5).load_state_dict(large.state_dict())
