"""Mixtures keep their quotas, read each data set in its own order, and end as their policy says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan import schedules as s
from trainplan.data import BatchSampler, Feedback, Mixture, Order, Stage, temperature_weights
from trainplan.data.hashing import stream_of
from trainplan.data.quotas import quota_counts, turns

SIZES = {"web": 500, "math": 60, "code": 100}
WEIGHTS = {"web": s.linear(1.0, 0.5, duration=40), "math": 0.3, "code": 0.2}


def whole(source, steps):
    return [source.examples(t, 0, source.global_batch).tolist() for t in range(steps)]


def flat(batches):
    return [example for batch in batches for example in batch]


def by_name(source, indices):
    """Indices within each data set, in the order in which they are shown."""
    edges = np.cumsum([0, *source.sizes])
    return {
        name: [i - edges[k] for i in indices if edges[k] <= i < edges[k + 1]]
        for k, name in enumerate(source.names)
    }


weights = st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any)


@given(weights, st.integers(1, 300), st.integers(0, 2**60), st.integers(0, 5))
def test_quotas_are_less_than_one_example_away_and_add_up(weights, size, step, seed):
    table = np.asarray([weights], float)
    counts = quota_counts(size, table, turns(seed, np.array([step])))[0]
    assert counts.sum() == size
    assert (counts >= 0).all()
    assert (np.abs(counts - size * table[0] / table.sum()) < 1 + 1e-9).all()
    assert (counts[table[0] == 0] == 0).all()


@settings(max_examples=20, deadline=None)
@given(weights, st.integers(1, 200))
def test_quotas_do_not_drift(weights, size):
    table = np.tile(np.asarray(weights, float), (20_000, 1))
    counts = quota_counts(size, table, turns(1, np.arange(20_000)))
    ideal = size * table / table.sum(1, keepdims=True)
    assert np.abs(np.cumsum(counts - ideal, axis=0)).max() < 5


def test_offsets_turn_exactly_even_far_along():
    far = np.array([10**15, 10**15 + 1])
    word = (0x9E3779B97F4A7C15 * 10**15 + 0) % 2**64
    first, second = turns(3, far)
    assert (second - first) % 1 == pytest.approx(0x9E3779B97F4A7C15 / 2**64, abs=1e-12)
    zero = turns(3, np.array([0]))[0]
    assert (first - zero) % 1 == pytest.approx(word / 2**64, abs=1e-12)


@pytest.mark.parametrize("exact", [True, False])
def test_each_data_set_is_read_in_its_own_order_whatever_the_others(exact):
    mixture = Mixture(SIZES, WEIGHTS, 16, seed=2, exact=exact)
    shown = by_name(mixture, flat(whole(mixture, 60)))
    for name, seen in shown.items():
        order = Order(SIZES[name], 2, stream=stream_of(name))
        assert seen == order.block(0, len(seen)).tolist()
    more = Mixture(SIZES | {"law": 10}, WEIGHTS | {"law": 0.1}, 16, seed=2, exact=exact)
    again = by_name(more, flat(whole(more, 60)))
    for name, seen in again.items():
        if name != "law":
            shared = min(len(seen), len(shown[name]))
            assert seen[:shared] == shown[name][:shared]


def test_shares_follow_the_schedule_exactly_or_by_chance():
    for exact in (True, False):
        mixture = Mixture(SIZES, WEIGHTS, 32, seed=1, exact=exact)
        counts = np.array([mixture.counts(t) for t in range(40)])
        ideal = 32 * mixture.shares(np.arange(40))
        off = np.abs(np.cumsum(counts - ideal, axis=0)).max()
        assert (off < 5) if exact else (5 < off < 150)
        labels = [mixture.labels(t) for t in range(40)]
        assert [np.bincount(x, minlength=3).tolist() for x in labels] == counts.tolist()
        # Every part of a step sees the mixture.
        first_half = sum((x[:16] == 0).sum() for x in labels)
        assert first_half == pytest.approx(counts[:, 0].sum() / 2, rel=0.1)


def test_stages_are_a_mixture_too():
    stages = [Stage(2, {"web": 1}), Stage(5, {"web": 1, "code": 1})]
    mixture = Mixture(SIZES, stages, 10)
    assert [mixture.counts(t).tolist() for t in (0, 1, 2, 3)] == [[10, 0, 0]] * 2 + [[5, 0, 5]] * 2


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("policy", ["repeat", "stop", "cover", "drop"])
def test_what_happens_when_a_data_set_ends(policy, exact):
    sizes, even = {"a": 30, "b": 100}, {"a": 1.0, "b": 1.0}
    mixture = Mixture(sizes, even, 8, seed=1, exhausted=policy, exact=exact)
    if policy == "repeat":
        assert mixture.steps is None
        seen = by_name(mixture, flat(whole(mixture, 100)))["a"]
        assert sorted(seen[:30]) == sorted(seen[30:60]) == list(range(30))
        assert seen[:30] != seen[30:60]
        return
    steps = mixture.steps
    batches = [list(b) for b in BatchSampler(mixture)]
    assert len(batches) == steps == len(BatchSampler(mixture))
    seen = by_name(mixture, flat(batches))
    if policy == "stop":
        assert len(seen["a"]) == len(set(seen["a"])) <= 30
        assert len(seen["a"]) > 30 - 8
        assert mixture.labels(steps - 1).size == 8
    if policy == "cover":
        assert set(seen["b"]) == set(range(100))
        assert len(set(flat(batches[:-1])) & set(range(30, 130))) < 100
    if policy == "drop":
        assert sorted(seen["a"]) == list(range(30))
        assert len(seen["b"]) == len(set(seen["b"]))
        assert len(seen["b"]) > 100 - 8


def test_policies_may_differ_between_data_sets():
    sizes = {"a": 20, "b": 50, "c": 1000}
    mixture = Mixture(
        sizes,
        {"a": 1, "b": 1, "c": 2},
        8,
        exhausted={"b": "stop"},
        max_epochs={"a": 2},
        steps=100,
    )
    seen = by_name(mixture, flat([list(b) for b in BatchSampler(mixture)]))
    assert sorted(seen["a"]) == sorted([*range(20), *range(20)])
    assert len(seen["b"]) <= 50
    assert mixture.steps < 100
    told = mixture.epochs(mixture.steps)
    assert told["a"] == 2
    with pytest.raises(PlanError, match="used up at step 5"):
        whole(Mixture(sizes, {"a": 1, "b": 1}, 8, exhausted="error"), 6)


def test_all_used_up_ends_the_run_with_whole_steps():
    mixture = Mixture({"a": 13, "b": 14}, {"a": 1, "b": 3}, 4, exhausted="drop")
    seen = [x for batch in BatchSampler(mixture) for x in batch]
    assert len(seen) == len(set(seen)) == 24


@settings(max_examples=20, deadline=None)
@given(
    step=st.integers(0, 70) | st.integers(1020, 1030),
    layout=st.sampled_from([(1, 1), (2, 2), (4, 1), (16, 1)]),
    policy=st.sampled_from(["repeat", "drop"]),
    exact=st.booleans(),
)
def test_any_step_is_reached_with_and_without_a_state_on_any_ranks(step, layout, policy, exact):
    def make():
        sizes = {"web": 10_000, "math": 60, "code": 20_000}
        return Mixture(sizes, WEIGHTS, 16, seed=5, exhausted=policy, exact=exact)

    expected = [make().examples(t, 0, 16).tolist() for t in range(step, step + 2)]
    source = BatchSampler(make())
    source.seek(step=step)
    state = json.loads(json.dumps(source.state_dict()))
    got = []
    for rank in range(layout[0]):
        sampler = BatchSampler(make(), ranks=layout[0], rank=rank, accumulation=layout[1])
        sampler.load_state_dict(state)
        iterator = iter(sampler)
        got.append([list(next(iterator)) for _ in range(2 * layout[1])])
    merged = [
        [x for a in range(layout[1]) for r in range(layout[0]) for x in got[r][t * layout[1] + a]]
        for t in range(2)
    ]
    assert merged == expected


def test_the_state_of_many_data_sets_is_small():
    names = [f"domain-{k}" for k in range(20)]
    mixture = Mixture(dict.fromkeys(names, 10**9), dict.fromkeys(names, 1.0), 4096)
    sampler = BatchSampler(mixture, ranks=1, rank=0)
    sampler.seek(step=100_000)
    assert len(json.dumps(sampler.state_dict())) < 1000


class Bandit:
    """Weighs data sets by their mean reward: a controller over several numbers."""

    def __init__(self):
        self.score = {"a": 1.0, "b": 1.0}

    def value(self, t):
        return list(self.score.values())

    def observe(self, t, **signals):
        for name, mean in zip(signals["reward"].keys, signals["reward"].means, strict=True):
            self.score[name] = 0.9 * self.score[name] + 0.1 * float(mean)

    def state_dict(self):
        return {"score": dict(self.score)}

    def load_state_dict(self, state):
        self.score = dict(state["score"])


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("policy", ["repeat", "drop", "cover"])
@pytest.mark.parametrize("lag", [0, 2])
def test_a_bandit_over_data_sets_resumes_exactly(lag, policy, exact):
    def make():
        feedback = Feedback(Bandit(), lag)
        sizes = {"a": 60, "b": 100}
        return BatchSampler(Mixture(sizes, feedback, 8, seed=1, exhausted=policy, exact=exact))

    def train(sampler, start, stop=10**9):
        seen = []
        for step, batch in enumerate(sampler, start=start):
            examples = list(batch)
            seen.append(examples)
            sampler.source.weights.observe(
                step, reward={"a": (step % 3) / 2, "b": sum(x >= 60 for x in examples) / 8}
            )
            if step + 1 == stop or step == 40:
                break
        return seen

    expected = train(make(), 0)
    if policy == "drop":
        shown = flat(expected)
        assert len(shown) == len(set(shown)) == 160
    for stop in (1, 3, 9, 14):
        if stop >= len(expected):
            continue
        first = make()
        seen = train(first, 0, stop)
        state = json.loads(json.dumps(first.state_dict()))
        second = make()
        second.load_state_dict(state)
        assert seen + train(second, stop) == expected


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any),
    st.sampled_from([(1, 4), (2, 2), (4, 1), (2, 1)]),
    st.sampled_from(["repeat", "drop", "stop"]),
)
def test_each_micro_batch_has_its_quotas_if_they_are_of_parts(weights, layout, policy):
    given_weights = dict(zip(SIZES, weights, strict=True))
    mixture = Mixture(SIZES, given_weights, 32, seed=3, per=4, exhausted=policy, steps=40)
    steps = range(min(mixture.steps, 40))
    ideal = 8 * np.asarray(weights, float) / sum(weights)
    left, edges = np.array(list(SIZES.values())), np.cumsum(list(SIZES.values()))
    off = np.zeros(3)
    for step in steps:
        counts = np.bincount(mixture.labels(step), minlength=3)
        assert counts.tolist() == mixture.counts(step).tolist()
        left = left - counts
        for part in mixture.examples(step, 0, 32).reshape(4, 8):
            found = np.bincount(np.searchsorted(edges, part, side="right"), minlength=3)
            if policy != "drop" or (left > 0).all():
                assert (np.abs(found - ideal) < 1).all()
                off += found - ideal
    assert (np.abs(off) < 5).all()
    shown = flat(whole(mixture, len(steps)))
    if policy != "repeat":
        assert len(set(shown)) == len(shown)
    # The order is the same on all ranks that whole parts can be given to.
    ranks, accumulation = layout
    samplers = [
        BatchSampler(mixture, ranks=ranks, rank=rank, accumulation=accumulation)
        for rank in range(ranks)
    ]
    micro = zip(*samplers, strict=True)
    assert flat(batch for turn in micro for batch in turn) == shown


@pytest.mark.parametrize("policy", ["repeat", "cover", "drop"])
@pytest.mark.parametrize("decided", [True, False])
def test_quotas_of_parts_resume_exactly_and_can_be_decided(policy, decided):
    def make():
        shares = Feedback(Bandit(), 1) if decided else {"a": 1, "b": 2}
        return BatchSampler(
            Mixture({"a": 60, "b": 100}, shares, 12, per=3, exhausted=policy, steps=14)
        )

    def train(sampler, first, last):
        seen = []
        for step, batch in zip(range(first, last), sampler, strict=False):
            seen += list(batch)
            if decided:
                sampler.source.weights.observe(step, reward={"a": step % 3, "b": batch[0] / 160})
        return seen

    expected = train(make(), 0, 14)
    assert len(expected) > 100
    for stop in (1, 6, 11):
        first, second = make(), make()
        seen = train(first, 0, stop)
        second.load_state_dict(json.loads(json.dumps(first.state_dict(step=stop))))
        assert seen + train(second, stop, 14) == expected


def test_temperature_flattens():
    assert temperature_weights({"a": 3, "b": 1}, 1) == {"a": 0.75, "b": 0.25}
    flat = temperature_weights({"a": 3, "b": 1}, 1e6)
    assert flat["a"] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mixture({}, {}, 4), "needs a data set"),
        (lambda: Mixture(SIZES, {"wep": 1}, 4), "Did you mean 'web'"),
        (lambda: Mixture(SIZES, {"web": -1}, 4).counts(0), "weights.web"),
        (lambda: Mixture(SIZES, {"web": 0}, 4).counts(3), "all are zero at step 0"),
        (lambda: Mixture(SIZES, {"web": float("nan")}, 4), "weights.web"),
        (lambda: Mixture(SIZES, {"web": 1}, 4, exhausted="loop"), "exhausted.web"),
        (lambda: Mixture(SIZES, {"web": s.linear(1.0, 0.5)}, 4), "needs its length"),
        (lambda: Mixture({"web": 0}, {"web": 1}, 4), "sizes.web"),
        (lambda: Mixture(SIZES, WEIGHTS, 8, per=3), "nearest are 6 and 9"),
        (lambda: Mixture(SIZES, WEIGHTS, 8, per=0), "per"),
        (lambda: Mixture(SIZES, WEIGHTS, 8, per=2, exact=False), "have no quotas"),
        (lambda: BatchSampler(Mixture(SIZES, WEIGHTS, 8, per=2), ranks=4, rank=0), "per=4"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(PlanError, match=words):
        make()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("policy", ["repeat", "stop", "cover", "drop"])
def test_every_step_of_a_run_is_resumed_under_every_policy(policy, exact):
    def make():
        sizes, even = {"a": 30, "b": 100}, {"a": 1.0, "b": s.linear(1.0, 2.0, duration=9)}
        source = Mixture(sizes, even, 8, seed=1, exhausted=policy, exact=exact, steps=30)
        return BatchSampler(source, ranks=1, rank=0)

    whole = make()
    expected = [list(batch) for batch in whole]
    for step in range(len(expected) + 1):
        again = make()
        again.load_state_dict(json.loads(json.dumps(whole.state_dict(step=step))))
        assert [list(batch) for batch in again] == expected[step:]
