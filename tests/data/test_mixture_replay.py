"""Replay in a mixture brings back what was shown, in its share, and is resumed from positions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trainplan import PlanError
from trainplan.data import AgeSchedule, BatchSampler, Feedback, Mixture, Replay, Stage
from trainplan.data.hashing import hashed, key
from trainplan.data.quotas import quota_counts, turns

TASKS = {"a": 90, "b": 60, "c": 200}
SIZE = 12
SHARE = 0.25
CLASSES = np.arange(350) % 7 // 2
KINDS = {
    "past": Replay(),
    "reservoir": Replay("reservoir", capacity=30),
    "reservoirs": Replay("reservoir", capacity=10, per_task=True),
    "classes": Replay("reservoir", capacity=4, classes=CLASSES),
    "recency": Replay("recency", ages=AgeSchedule("power", b=0.5)),
}
EDGES = np.cumsum(list(TASKS.values()))


def in_turn(share=SHARE, length=10):
    """One task after the other, with replay."""
    return [Stage(length, {name: 1 - share, "replay": share}) for name in TASKS]


def learning(kind, weights=None, **kwargs):
    given = {"seed": 3, "steps": 30, "replay": KINDS[kind]} | kwargs
    return Mixture(TASKS, weights or in_turn(), SIZE, **given)


def task_of(examples):
    return np.searchsorted(EDGES, examples, side="right")


def walked(mixture, steps=30):
    """Each step, with what the data sets had shown before, what is new, and what is old."""
    seen = set()
    for step in range(steps):
        examples, labels = mixture.examples(step, 0, SIZE), mixture.labels(step)
        own = labels < len(TASKS)
        assert (task_of(examples[own]) == labels[own]).all()
        yield step, seen, examples[own], examples[~own]
        seen |= set(examples[own].tolist())


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_back_was_shown_in_its_share(kind, exact):
    old = []
    for step, seen, new, again in walked(learning(kind, exact=exact)):
        assert set(again.tolist()) <= seen
        if len(seen) > 3 * SIZE:
            assert len(set(again.tolist())) == len(again) or kind == "recency"
        if kind in ("past", "recency"):
            # Only of the tasks that are over; in the first one there is none.
            assert (task_of(again) < step // 10).all()
            assert step >= 10 or (len(new), len(again)) == (SIZE, 0)
        old.append(len(again))
    assert old[0] == 0
    begun = 10 if kind in ("past", "recency") else 1
    if exact:
        assert set(old[begun:]) == {3}
    assert sum(old[begun:]) == pytest.approx(SHARE * SIZE * (30 - begun), rel=0.3)


@pytest.mark.parametrize("kind", ["reservoir", "reservoirs", "classes"])
def test_a_reservoir_holds_the_least_hashes_of_what_was_shown(kind):
    mixture, drawn = learning(kind), set()
    for step, seen, _, again in walked(mixture):
        if not seen:
            continue
        examples = np.array(sorted(seen))
        hashes = hashed(examples.astype(np.uint64), key(3, 4))
        groups = {"reservoirs": task_of(examples), "classes": CLASSES[examples]}
        group = groups.get(kind, np.zeros(len(examples)))
        pools = [group == k for k in np.unique(group)]
        capacity = KINDS[kind].capacity
        held = np.concatenate([examples[p][np.argsort(hashes[p])[:capacity]] for p in pools])
        assert set(again.tolist()) <= set(held.tolist())
        assert set(mixture.past.held(mixture.cursors(step)[:3]).tolist()) == set(held.tolist())
        drawn |= set(again.tolist())
    assert len(drawn) > 20


def test_all_of_the_past_is_as_likely():
    weights = [Stage(5, {"a": 1}), Stage(5, {"b": 1}), Stage(1e9, {"c": 1, "replay": 1})]
    mixture = Mixture(TASKS, weights, SIZE, steps=600, replay=Replay())
    again = np.concatenate([old for *_, old in walked(mixture, 600)])
    counts = np.bincount(again, minlength=150)[:150]
    shown = counts[counts > 0]
    assert again.max() < 150
    assert shown.size == 120  # 60 of each
    assert ((shown - shown.mean()) ** 2 / shown.mean()).sum() < 170


def test_recent_tasks_come_back_as_the_ages_say():
    weights = [Stage(3, {"a": 1}), Stage(3, {"b": 1}), Stage(1e9, {"c": 1, "replay": 3})]
    ages = AgeSchedule("power", b=1.0)
    mixture = Mixture(TASKS, weights, SIZE, steps=400, replay=Replay("recency", ages=ages))
    again = np.concatenate([old for *_, old in walked(mixture, 400)])
    assert np.mean(task_of(again) == 1) == pytest.approx(2 / 3, abs=0.03)
    assert len(again) == pytest.approx(394 * 9, abs=5)


@pytest.mark.parametrize("kind", ["past", "recency"])
def test_the_share_goes_back_whenever_there_is_nothing_to_replay(kind):
    """Against a walk of one step at a time, across the edges of what is computed at once."""
    weights = [
        Stage(700, {"b": 2, "replay": 1}),
        Stage(330, {"c": 2, "a": 0.001, "replay": 1}),
        Stage(20, {"a": 1, "b": 1, "c": 1, "replay": 1}),
        Stage(900, {"a": 1, "replay": 1}),
    ]
    mixture = Mixture(TASKS, weights, SIZE, seed=1, steps=1100, replay=KINDS[kind])
    cursors = np.zeros(4, np.int64)
    for step in range(1100):
        shares = mixture.shares(np.array([step]))[0].copy()
        newest = np.flatnonzero(shares[:3])[-1]
        over = (shares[:3] == 0) & (cursors[:3] > 0)
        if kind == "recency":
            over = (np.arange(3) < newest) & (cursors[:3] > 0)
        shares[3] *= over.any()
        assert mixture.cursors(step).tolist() == cursors.tolist()
        cursors += quota_counts(SIZE, shares[None], turns(1, np.array([step])))[0]


@pytest.mark.parametrize("options", [{}, {"exact": False}, {"per": 4}, {"exhausted": "drop"}])
@pytest.mark.parametrize("kind", KINDS)
def test_replay_is_resumed_at_any_step_on_any_ranks(kind, options):
    def make():
        weights = [Stage(10, {name: 1, "c": 1, "replay": 1}) for name in TASKS]
        return learning(kind, weights, **options)

    whole = BatchSampler(make(), ranks=1, rank=0)
    expected = [list(batch) for batch in whole]
    assert len(expected) > 15
    for step in (0, 1, 9, 10, 14, len(expected) - 1, len(expected)):
        state = json.loads(json.dumps(whole.state_dict(step=step)))
        ranks = []
        for rank in range(2):
            sampler = BatchSampler(make(), ranks=2, rank=rank)
            sampler.load_state_dict(state)
            ranks.append([list(batch) for batch in sampler])
        assert [x + y for x, y in zip(*ranks, strict=True)] == expected[step:]


def test_replay_ends_with_the_data_sets():
    even = dict.fromkeys([*TASKS, "replay"], 1.0)
    mixture = learning("reservoir", even, steps=None, exhausted="drop")
    assert mixture.steps is not None
    own = np.concatenate([new for _, _, new, _ in walked(mixture, mixture.steps)])
    assert len(own) == len(set(own.tolist())) > sum(TASKS.values()) - SIZE


class Growing:
    """More replay the more is reported."""

    def __init__(self):
        self.share = 0.1

    def value(self, t):
        return {"a": 1.0, "b": 0.5, "replay": self.share}

    def observe(self, t, **signals):
        self.share += float(signals["loss"])

    def state_dict(self):
        return {"share": self.share}

    def load_state_dict(self, state):
        self.share = state["share"]


@pytest.mark.parametrize("kind", ["reservoir", "past"])
def test_its_weight_can_be_decided_while_training(kind):
    def make():
        return BatchSampler(learning(kind, Feedback(Growing(), 1)), ranks=1, rank=0)

    def train(sampler, first, last):
        seen = []
        for step, batch in zip(range(first, last), sampler, strict=False):
            seen.append(list(batch))
            sampler.source.weights.observe(step, loss=(batch[0] % 3) / 10)
        return seen

    expected = train(make(), 0, 20)
    for stop in (1, 7, 15):
        first, second = make(), make()
        seen = train(first, 0, stop)
        second.load_state_dict(json.loads(json.dumps(first.state_dict(step=stop))))
        assert seen + train(second, stop, 20) == expected


def test_the_state_is_a_few_numbers_and_knows_the_kind():
    state = BatchSampler(learning("reservoir"), ranks=1, rank=0).state_dict(step=20)
    assert len(json.dumps(state)) < 600
    with pytest.raises(PlanError, match="replay differs"):
        BatchSampler(learning("past"), ranks=1, rank=0).load_state_dict(state)
    assert set(learning("past").epochs(10)) == set(TASKS)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Replay("reservior"), "Did you mean 'reservoir'"),
        (lambda: Replay("reservoir"), "capacity"),
        (lambda: Replay("past", capacity=3), "only a reservoir"),
        (lambda: Replay("reservoir", capacity=3, classes=[0.5]), "whole number per example"),
        (lambda: Replay("reservoir", capacity=3, per_task=True, classes=[0]), "each class"),
        (
            lambda: Mixture(TASKS, {"a": 1}, 4, replay=Replay("reservoir", 3, classes=[0])),
            "1 classes for 350",
        ),
        (lambda: Replay("past", ages=AgeSchedule("power")), "draws ages"),
        (lambda: Mixture({"replay": 9}, {"replay": 1}, 4, replay=Replay()), "has this name"),
        (lambda: Mixture(TASKS, {"replay": 1}, 4, replay=Replay()).counts(0), "nothing to replay"),
        (lambda: Mixture(TASKS, {"a": 1, "replay": 1}, 4), "no such data set"),
        (
            lambda: Mixture(
                TASKS, {"a": 1}, 4, replay=Replay(), difficulty={"a": range(90)}, pacing=1.0
            ),
            "cannot be replayed",
        ),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(PlanError, match=words):
        make()
