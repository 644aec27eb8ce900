"""Orders by quality are permutations with the quality they promise, and say what a rate wastes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trainplan import PlanError
from trainplan import schedules as s
from trainplan.data import QualityOrder, phase_order, quality_order, rate_share
from trainplan.data.hashing import priorities

SCORES = arrays(np.float64, st.integers(0, 200), elements=st.integers(0, 20).map(float))


@given(SCORES, st.sampled_from(["ascend", "descend", "uniform"]), st.integers(0, 5))
def test_every_order_reads_each_example_once(scores, mode, seed):
    assert sorted(quality_order(scores, mode, seed=seed)) == list(range(scores.size))


@given(SCORES, st.integers(1, 9), st.integers(0, 5))
def test_each_fold_ascends_and_folds_are_alike(scores, folds, seed):
    order = quality_order(scores, "fold", folds=folds, seed=seed)
    assert sorted(order) == list(range(scores.size))
    lengths = [len(range(k, scores.size, folds)) for k in range(folds)]
    for fold in np.split(scores[order], np.cumsum(lengths)[:-1]):
        assert (np.diff(fold) >= 0).all()
    assert max(lengths) - min(lengths) <= 1


@given(SCORES, st.integers(0, 5))
def test_ascending_and_descending_are_sorted(scores, seed):
    assert (np.diff(scores[quality_order(scores, "ascend", seed=seed)]) >= 0).all()
    assert (np.diff(scores[quality_order(scores, "descend", seed=seed)]) <= 0).all()


def test_ties_are_shuffled_by_the_seed_and_only_ties():
    scores = np.repeat([1.0, 2.0], 500)
    first, second = (quality_order(scores, seed=seed) for seed in (0, 1))
    assert first.tolist() == quality_order(scores, seed=0).tolist() != second.tolist()
    assert set(first[:500]) == set(range(500))
    assert abs(np.corrcoef(first[:500], np.arange(500))[0, 1]) < 0.2
    assert quality_order(scores, seed=None).tolist() == list(range(1000))


def test_the_shuffle_is_the_same_everywhere():
    assert np.argsort(priorities(10, 0), kind="stable")[:4].tolist() == [5, 4, 9, 0]
    assert np.argsort(priorities(10, 7, 0, 3), kind="stable")[:4].tolist() == [5, 6, 1, 8]
    big = np.argsort(priorities(65536, 0), kind="stable")
    assert big[:4].tolist() == [54580, 63465, 38365, 55379]


def test_windows_shuffle_near_examples_only():
    order = quality_order(np.arange(100.0), window=10, seed=3)
    assert order.tolist() != list(range(100))
    assert sorted(order) == list(range(100))
    assert (np.sort(order.reshape(10, 10), axis=1).ravel() == np.arange(100)).all()


def test_phases_keep_their_place_unless_sorted_across():
    scores = np.array([5.0, 4, 3, 9, 1, 8])
    mixed = phase_order(scores, [3, 3], ["uniform", "ascend"], seed=0)
    assert set(mixed[:3]) == {0, 1, 2}
    assert mixed[3:].tolist() == [4, 5, 3]
    across = phase_order(scores, [3, 3], ["ascend", "ascend"], across=True)
    assert across.tolist() == [4, 2, 1, 0, 5, 3]


@given(SCORES, st.integers(1, 7))
def test_ranks_share_the_data_and_see_like_quality(scores, ranks):
    order = QualityOrder.of(scores)
    shards = [order.shard(rank, ranks) for rank in range(ranks)]
    assert sorted(i for shard in shards for i in shard) == list(range(scores.size))
    together = [i for group in zip(*shards, strict=False) for i in group]
    assert together == list(order)[: len(together)]


@given(SCORES)
def test_resuming_at_any_position_changes_nothing(scores):
    order = QualityOrder.of(scores, "uniform", seed=2)
    for position in range(0, len(order) + 1, 17):
        assert (
            list(QualityOrder.of(scores, "uniform", seed=2).starting_at(position))
            == (list(order)[position:])
        )


def test_it_is_a_sampler():
    data = pytest.importorskip("torch.utils.data")
    scores = [0.3, 0.1, 0.9, 0.2]
    loader = data.DataLoader(scores, batch_size=2, sampler=QualityOrder.of(scores))
    assert [x for batch in loader for x in batch.tolist()] == sorted(scores)


@pytest.mark.parametrize(
    ("schedule", "share"),
    [
        (s.constant(3e-3), 0.1),
        (s.wsd(3e-3, 0, "20%", "1-sqrt", 1e-5), 0.0163),
        (s.wsd(3e-3, 0, "20%", "1-sqrt", 1e-3), 0.0467),
        (s.cosine(3e-3), 0.00164),
    ],
    ids=["constant", "wsd", "moderate", "cosine"],
)
def test_decay_takes_the_rate_from_the_best_data(schedule, share):
    rates = schedule.resolve(10_000)(np.arange(10_000))
    assert rate_share(rates) == pytest.approx(share, rel=0.01)
    descending = -np.arange(10_000.0)
    assert rate_share(rates, descending) >= share


def test_the_share_of_everything_is_everything():
    assert rate_share(np.random.default_rng(0).random(37), top=1.0) == pytest.approx(1.0)
    assert rate_share(np.ones(7), top=0.25) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda: quality_order([1.0, float("nan")]), "scores[1]"),
        (lambda: quality_order([[1.0]]), "scores"),
        (lambda: quality_order([1.0], "up"), "mode"),
        (lambda: quality_order([1.0], "ascend", folds=2), "folds"),
        (lambda: quality_order([1.0], "uniform", seed=None), "seed"),
        (lambda: quality_order([1.0], seed=-1), "seed"),
        (lambda: phase_order([1.0, 2.0], [1], ["ascend"]), "phases"),
        (lambda: phase_order([1.0], [1], []), "modes"),
        (lambda: phase_order([1.0], [1, 0], ["ascend", "uniform"], across=True), "modes"),
        (lambda: QualityOrder.of([1.0]).starting_at(2), "position"),
        (lambda: QualityOrder.of([1.0]).shard(1, 1), "rank"),
        (lambda: rate_share([0.0, 0.0]), "rates"),
        (lambda: rate_share([-1.0]), "rates"),
        (lambda: rate_share([1.0], [1.0, 2.0]), "quality"),
        (lambda: rate_share([1.0], top=0), "top"),
    ],
)
def test_bad_input_is_named(call, place):
    with pytest.raises(PlanError) as caught:
        call()
    assert caught.value.place == place
