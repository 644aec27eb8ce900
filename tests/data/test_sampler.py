"""Samplers share steps out without overlap or gap, and go on anywhere as if never interrupted."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import Batch, BatchSampler, Shuffle
from trainplan.data.batches import Indices
from trainplan.data.sources import Source


def steps_of(source, ranks, accumulation, steps):
    """The examples of each step, gathered over ranks and micro-batches."""
    samplers = [
        BatchSampler(source, ranks=ranks, rank=rank, accumulation=accumulation)
        for rank in range(ranks)
    ]
    iterators = [iter(sampler) for sampler in samplers]
    return [[list(next(it)) for _ in range(accumulation) for it in iterators] for _ in range(steps)]


def flat(step):
    return [example for batch in step for example in batch]


@given(
    st.integers(24, 500),
    st.sampled_from(["drop", "wrap"]),
    st.sampled_from([(1, 1), (2, 1), (3, 2), (4, 3), (8, 3), (12, 2), (24, 1)]),
)
def test_steps_are_the_same_for_any_ranks_and_micro_batches(n, tail, layout):
    source = Shuffle(n, 24, seed=3, tail=tail)
    steps = min(6, n // 24) if tail == "drop" else 6
    alone = steps_of(source, 1, 1, steps)
    shared = steps_of(source, *layout, steps)
    # Not only the same sets: ranks and micro-batches read the step in order.
    assert [flat(step) for step in shared] == [flat(step) for step in alone]


@given(st.integers(1, 400), st.integers(1, 50), st.integers(0, 3))
def test_an_epoch_has_each_example_once_but_for_the_tail(n, size, epoch):
    if size <= n:
        dropped = BatchSampler(Shuffle(n, size, tail="drop"))
        dropped.seek(epoch=epoch)
        seen = [x for batch in dropped for x in batch]
        assert len(seen) == len(set(seen)) == n - n % size
    short = BatchSampler(Shuffle(n, size, tail="short"))
    short.seek(epoch=epoch)
    batches = list(short)
    assert sorted(x for batch in batches for x in batch) == list(range(n))
    assert len(batches) == len(short) == -(-n // size)
    padded = Shuffle(n, size, tail="pad")
    sampler = BatchSampler(padded)
    sampler.seek(epoch=epoch)
    batches = [list(batch) for batch in sampler]
    assert all(len(batch) == size for batch in batches)
    extra = sum(padded.padding(epoch * len(sampler) + i) for i in range(len(sampler)))
    seen = [x for batch in batches for x in batch]
    assert sorted(seen[: len(seen) - extra]) == list(range(n))
    wrapped = BatchSampler(Shuffle(n, size, epochs=3, tail="wrap"))
    seen = [x for batch in wrapped for x in batch][: 3 * n]
    assert (np.bincount(seen, minlength=n) == 3).all()
    assert len(wrapped) == -(-3 * n // size)


def test_dropped_examples_differ_from_epoch_to_epoch():
    sampler = BatchSampler(Shuffle(20, 16, epochs=4))
    missed = [set(range(20)) - {x for batch in sampler for x in batch} for _ in range(4)]
    assert len({frozenset(m) for m in missed}) > 1
    assert list(sampler) == []


@settings(max_examples=40, deadline=None)
@given(
    st.integers(24, 300),
    st.sampled_from(["drop", "wrap"]),
    st.integers(0, 40),
    st.sampled_from([(1, 1), (2, 2), (3, 1), (8, 1), (12, 2)]),
    st.sampled_from([(1, 1), (2, 1), (4, 3), (6, 1), (24, 1)]),
)
def test_a_run_goes_on_at_any_step_on_other_hardware(n, tail, step, before, after):
    whole = BatchSampler(Shuffle(n, 24, tail=tail), ranks=1, rank=0)
    expected = [list(whole.batch(i)) for i in range(step, step + 3)]
    states = []
    for rank in range(before[0]):
        sampler = BatchSampler(
            Shuffle(n, 24, tail=tail), ranks=before[0], rank=rank, accumulation=before[1]
        )
        sampler.seek(step=step)
        states.append(json.loads(json.dumps(sampler.state_dict())))
    assert all(state == states[0] for state in states)
    resumed = []
    for rank in range(after[0]):
        sampler = BatchSampler(
            Shuffle(n, 24, tail=tail), ranks=after[0], rank=rank, accumulation=after[1]
        )
        sampler.load_state_dict(states[0])
        assert sampler.step == step
        resumed.append([list(sampler.batch(step * after[1] + i)) for i in range(3 * after[1])])
    merged = [
        [resumed[r][t * after[1] + a] for a in range(after[1]) for r in range(after[0])]
        for t in range(3)
    ]
    assert [flat(step) for step in merged] == expected


def test_a_state_from_inside_a_step_goes_on_where_micro_batches_match():
    sampler = BatchSampler(Shuffle(1000, 24), accumulation=4)
    whole = [list(sampler.batch(i)) for i in range(20)]
    iterator = iter(sampler)
    for _ in range(6):
        next(iterator)
    state = sampler.state_dict()
    assert state["position"] == 36
    again = BatchSampler(Shuffle(1000, 24), accumulation=4)
    again.load_state_dict(state)
    assert [list(x) for x, _ in zip(again, range(5), strict=False)] == whole[6:11]
    halves = BatchSampler(Shuffle(1000, 24), accumulation=2)
    halves.load_state_dict(state)
    assert list(next(iter(halves))) == whole[6] + whole[7]
    with pytest.raises(PlanError, match="after 2 of 4 micro-batches"):
        BatchSampler(Shuffle(1000, 24), accumulation=1).load_state_dict(state)


def test_all_ranks_micro_batches_in_turn_are_what_accelerate_shares_out():
    source = Shuffle(100, 24, epochs=1)
    every = [list(b) for b in BatchSampler(source, ranks=2, rank="all", accumulation=3)]
    for rank in range(2):
        own = [list(b) for b in BatchSampler(source, ranks=2, rank=rank, accumulation=3)]
        assert every[rank::2] == own


def test_epochs_follow_each_other_although_no_reader_asks_beyond_the_end():
    sampler = BatchSampler(Shuffle(10, 5, tail="drop"))
    for epoch in range(3):
        iterator = iter(sampler)
        seen = [x for _ in range(2) for x in next(iterator)]
        assert sorted(seen) == list(range(10))
        assert sampler.epoch == epoch + 1
    assert [len(list(sampler)) for _ in range(3)] == [2, 2, 2]


def test_a_change_of_the_global_batch_keeps_the_stream():
    sampler = BatchSampler(Shuffle(1000, 24))
    whole = sampler.source.order.block(0, 400).tolist()
    sampler.seek(step=5)
    state = sampler.state_dict()
    larger = BatchSampler(Shuffle(1000, 32))
    larger.load_state_dict(state)
    assert [x for b, _ in zip(larger, range(3), strict=False) for x in b] == whole[120:216]
    saved = larger.state_dict(step=7)
    again = BatchSampler(Shuffle(1000, 32))
    again.load_state_dict(saved)
    assert list(next(iter(again))) == whole[184:216]
    state = BatchSampler(Shuffle(1000, 24, tail="drop")).state_dict()
    with pytest.raises(PlanError, match="depends on that number"):
        BatchSampler(Shuffle(1000, 32, tail="drop")).load_state_dict(state)


def test_the_state_is_small_and_position_is_reached_without_one():
    sampler = BatchSampler(Shuffle(10**9, 1024), ranks=8, rank=3)
    sampler.seek(position=512 * 1024 * 1024)
    assert sampler.step == 512 * 1024
    assert len(json.dumps(sampler.state_dict())) < 400
    with pytest.raises(PlanError, match="nearest are 1024 and 2048"):
        sampler.seek(position=1025)


def test_batches_are_sequences_that_travel_as_a_few_numbers():
    batch = BatchSampler(Shuffle(10**9, 4096)).batch(10**5)
    assert len(pickle.dumps(batch)) < 500
    copy = pickle.loads(pickle.dumps(batch))
    assert copy == list(batch)
    assert copy == batch
    assert batch[3] == list(batch)[3] == batch.indices[3]
    assert batch[1:4] == list(batch)[1:4]
    assert batch != list(batch)[1:]
    assert isinstance(batch[0], int)
    assert batch[-1] in batch
    assert pickle.loads(pickle.dumps(Batch.of(np.arange(3)))) == [0, 1, 2]


def test_skipping_batches_computes_nothing():
    class Counting(Shuffle):
        computed = 0

        def examples(self, step: int, first: int, last: int) -> Indices:
            type(self).computed += 1
            return super().examples(step, first, last)

    iterator = iter(BatchSampler(Counting(10**9, 1024)))
    for _ in range(1000):
        next(iterator)
    assert Counting.computed == 0


def test_two_iterations_at_once_are_refused():
    sampler = BatchSampler(Shuffle(100, 10))
    first, second = iter(sampler), iter(sampler)
    next(second)
    with pytest.raises(PlanError, match="another loader"):
        next(first)


def test_a_state_names_what_differs():
    state = BatchSampler(Shuffle(1000, 10, seed=1, epochs=2)).state_dict()
    cases: list[tuple[Source, str]] = [
        (Shuffle(1024, 10, seed=1, epochs=2), "1000 -> 1024"),
        (Shuffle(1000, 10, seed=2, epochs=2), "seed 1"),
        (Shuffle(1000, 10, seed=1, epochs=3), "epochs differs"),
        (Shuffle(1000, 10, seed=1, epochs=2, tail="wrap"), "tail differs"),
        (Shuffle(1000, 10, seed=1, epochs=2, reshuffle=False), "reshuffle differs"),
    ]
    for source, words in cases:
        with pytest.raises(PlanError, match=words):
            BatchSampler(source).load_state_dict(state)
    same = BatchSampler(Shuffle(1000, 10, seed=1, epochs=2))
    with pytest.raises(PlanError, match="version 9"):
        same.load_state_dict(state | {"version": 9})
    with pytest.raises(PlanError, match="no 'position'"):
        same.load_state_dict({k: v for k, v in state.items() if k != "position"})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BatchSampler(Shuffle(100, 10), ranks=4, rank=0), "8 or 12"),
        (lambda: BatchSampler(Shuffle(100, 3), ranks=4, rank=0), "can: 4"),
        (lambda: BatchSampler(Shuffle(100, 8), ranks=4, rank=4), "4 ranks, from 0"),
        (lambda: BatchSampler(Shuffle(100, 8, tail="short"), ranks=8, rank=0), "another tail"),
        (lambda: Shuffle(100, 8, tail="cut"), "tail"),
        (lambda: Shuffle(5, 8, tail="drop"), "at most 5"),
        (lambda: Shuffle(5, 0), "global_batch"),
        (lambda: BatchSampler(Shuffle(100, 8)).seek(), "one way"),
        (lambda: BatchSampler(Shuffle(100, 8)).seek(epoch=1), "not divided into epochs"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(PlanError, match=words):
        make()


def test_an_endless_run_has_no_length():
    with pytest.raises(TypeError, match="epochs="):
        len(BatchSampler(Shuffle(100, 10)))
