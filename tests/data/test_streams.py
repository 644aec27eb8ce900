"""Mixtures of map-style data sets and of streams, in loaders with workers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from trainplan import PlanError  # noqa: E402
from trainplan import schedules as s  # noqa: E402
from trainplan.data import BatchSampler, Feedback, Joined, Mixture, Streams  # noqa: E402

WEIGHTS = {"a": s.linear(1.0, 0.2, duration=10), "b": 1.0}


def rows(loader):
    return [batch.tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_joined_data_sets_are_mixed_in_a_loader(workers):
    datasets = pytest.importorskip("datasets")
    a = datasets.Dataset.from_dict({"x": list(range(100))})
    b = [{"x": 1000 + i} for i in range(50)]
    joined = Joined({"a": a, "b": b})
    mixture = Mixture(joined.datasets, WEIGHTS, 8, steps=12)
    loader = DataLoader(joined, batch_sampler=BatchSampler(mixture), num_workers=workers)
    seen = [batch["x"].tolist() for batch in loader]
    assert [sum(x < 1000 for x in batch) for batch in seen] == [
        mixture.counts(t)[0] for t in range(12)
    ]
    expected = [list(b) for b in BatchSampler(mixture)]
    assert seen == [[i if i < 100 else 900 + i for i in batch] for batch in expected]


def make(**kwargs):
    streams = {"a": range(50), "b": range(1000, 1020)}
    return Streams(streams, WEIGHTS, 8, seed=3, steps=15, **kwargs)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_change_nothing(workers):
    alone = rows(DataLoader(make(), batch_size=8))
    assert len(alone) == 15
    assert rows(DataLoader(make(), batch_size=8, num_workers=workers)) == alone


def test_streams_are_read_in_their_order_with_the_mixtures_quotas():
    streams = make()
    seen = rows(DataLoader(streams, batch_size=8))
    flat = [x for batch in seen for x in batch]
    assert [x for x in flat if x < 1000] == list(range(50))[: sum(x < 1000 for x in flat)]
    late = [x for x in flat if x >= 1000]
    assert late == [1000 + i % 20 for i in range(len(late))]
    assert [sum(x < 1000 for x in batch) for batch in seen] == [
        streams.mixture.counts(t)[0] for t in range(15)
    ]


@pytest.mark.parametrize("step", [0, 1, 6, 14])
@pytest.mark.parametrize("sizes", [None, {"a": 50, "b": 20}])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_at_any_step(step, sizes, workers):
    whole = rows(DataLoader(make(), batch_size=8))
    rest = DataLoader(make(step=step, sizes=sizes), batch_size=8, num_workers=workers)
    assert rows(rest) == whole[step:]


def test_hugging_face_streams_skip_and_are_shuffled_anew():
    datasets = pytest.importorskip("datasets")
    a = datasets.Dataset.from_dict({"x": list(range(30))}).to_iterable_dataset()
    b = datasets.Dataset.from_dict({"x": list(range(100, 120))}).to_iterable_dataset()
    b = b.shuffle(seed=1, buffer_size=20)

    def stream(**kwargs):
        return Streams({"a": a, "b": b}, {"a": 1, "b": 1}, 4, steps=20, **kwargs)

    whole = [row["x"] for row in stream()]
    assert len(whole) == 80
    late = [x for x in whole if x >= 100]
    assert sorted(late[:20]) == sorted(late[20:]) == list(range(100, 120))
    assert late[:20] != late[20:]
    sizes = {"a": 30, "b": 20}
    assert [row["x"] for row in stream(step=12, sizes=sizes)] == whole[48:]


def test_ranks_share_a_step_out():
    whole = rows(DataLoader(make(), batch_size=8))
    parts = [
        rows(DataLoader(make(ranks=2, rank=rank, accumulation=2), batch_size=2, num_workers=2))
        for rank in range(2)
    ]
    merged = [
        [x for a in range(2) for r in range(2) for x in parts[r][2 * t + a]] for t in range(15)
    ]
    assert merged == whole


def test_a_run_may_stop_when_a_stream_ends():
    seen = list(Streams({"a": range(10), "b": range(99)}, {"a": 1, "b": 1}, 4, exhausted="stop"))
    assert len(seen) == 20


def test_mistakes_are_named():
    class Decider:
        def state_dict(self):
            return {}

    with pytest.raises(PlanError, match="hear nothing"):
        Streams({"a": range(3)}, Feedback(Decider()), 2)
    with pytest.raises(PlanError, match="repeat or stop"):
        Streams({"a": range(3)}, {"a": 1}, 2, exhausted="drop")
    with pytest.raises(PlanError, match="is empty"):
        list(Streams({"a": []}, {"a": 1}, 2))
    with pytest.raises(IndexError):
        Joined({"a": [1]})[1]
    with pytest.raises(PlanError, match="no data sets"):
        Joined({})
