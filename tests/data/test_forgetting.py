"""Forgetting events are those that a loop over every example's history counts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trainplan import PlanError
from trainplan.data import Forgetting


def batches(seed, n=12, steps=40):
    rng = np.random.default_rng(seed)
    return [(rng.permutation(n)[:5], rng.random(5) < 0.5) for _ in range(steps)]


@pytest.mark.parametrize("seed", range(5))
def test_events_are_those_of_each_history(seed):
    forgetting, histories = Forgetting(12), [[] for _ in range(12)]
    for examples, right in batches(seed):
        forgetting.observe(examples, right)
        for example, answer in zip(examples, right, strict=True):
            histories[example].append(bool(answer))
    expected = [
        sum(a and not b for a, b in itertools.pairwise(h)) if any(h) else np.inf for h in histories
    ]
    assert forgetting.difficulty().tolist() == expected


@pytest.mark.parametrize("stop", [0, 1, 17, 39])
def test_counting_goes_on_from_a_state(stop):
    whole, first, second = Forgetting(12), Forgetting(12), Forgetting(12)
    for step, batch in enumerate(batches(7)):
        if step == stop:
            second.load_state_dict(first.state_dict())
        whole.observe(*batch)
        (first if step < stop else second).observe(*batch)
    assert second.difficulty().tolist() == whole.difficulty().tolist()


def test_an_example_shown_twice_at_once_is_right_if_it_is_each_time():
    forgetting = Forgetting(2)
    forgetting.observe([0, 0, 1, 1], [True, True, True, False])
    assert forgetting.learned.tolist() == [True, False]
    forgetting.observe([0, 0], [False, True])
    assert forgetting.events.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("examples", "right", "words"),
    [([3], [True], "not one of 3"), ([-1], [True], "not one of 3"), ([0], [True, False], "answer")],
)
def test_mistakes_are_named(examples, right, words):
    with pytest.raises(PlanError, match=words):
        Forgetting(3).observe(examples, right)


def test_a_state_of_other_data_is_refused():
    with pytest.raises(PlanError, match="3 examples"):
        Forgetting(3).load_state_dict(Forgetting(4).state_dict())
