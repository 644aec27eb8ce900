"""Shapes travel with the examples, and batches of changing size lose and repeat nothing."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import (
    BatchSampler,
    Curriculum,
    Feedback,
    Joined,
    Mixture,
    Shaped,
    Shapes,
    Shuffle,
    VariedBatches,
    pacing,
)
from trainplan.schedules import linear

SIZES = [4, 4, 8, 12, 4, 8]


def varied(sizes=SIZES, **options):
    return VariedBatches(Shuffle(50, 8, seed=3), sizes, **options)


def stream(sampler):
    """All batches of a sampler, with their shapes."""
    return [list(batch) for batch in sampler]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 9).map(lambda k: 4 * k), min_size=1, max_size=12),
    st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)]),
    st.sampled_from([1, 8, 64]),
)
def test_every_rank_gets_its_part_of_the_one_stream(sizes, split, inner):
    ranks, accumulation = split
    shuffle = Shuffle(37, inner, seed=5)
    expected = shuffle.order.block(0, sum(sizes)).tolist()
    source = VariedBatches(shuffle, sizes, shape=np.arange(1, len(sizes) + 1))
    samplers = [
        BatchSampler(source, ranks=ranks, rank=r, accumulation=accumulation) for r in range(ranks)
    ]
    parts = [stream(s) for s in samplers]
    shared = [item for k in range(len(parts[0])) for part in parts for item in part[k]]
    assert [i for i, _ in shared] == expected
    whole = BatchSampler(source, ranks=ranks, rank="all", accumulation=accumulation)
    assert [item for batch in stream(whole) for item in batch] == shared
    steps = np.repeat(np.arange(len(sizes)), sizes) + 1
    assert [shape for _, shape in shared] == steps.tolist()


@pytest.mark.parametrize("step", range(len(SIZES) + 1))
def test_a_run_goes_on_from_any_step_with_other_ranks(step):
    whole = stream(BatchSampler(varied(shape=[1, 2, 3, 4, 5, 6])))
    first = BatchSampler(varied(shape=[1, 2, 3, 4, 5, 6]), ranks=2, rank=0)
    drawn = iter(first)
    for _ in range(step):
        next(drawn)
    state = first.state_dict()
    assert state["position"] == sum(SIZES[:step])
    later = BatchSampler(varied(shape=[1, 2, 3, 4, 5, 6]), ranks=1, rank=0)
    later.load_state_dict(state)
    assert stream(later) == whole[step:]
    later.seek(position=sum(SIZES[:step]))
    assert later.step == step


@pytest.mark.parametrize(
    "source",
    [
        lambda: Curriculum(np.arange(40.0), pacing("linear", start=0.2, full_at=8), 8, steps=20),
        lambda: Mixture({"a": 30, "b": 10}, {"a": 0.75, "b": linear(0, 1, duration=9)}, 8),
        lambda: Curriculum(np.arange(40.0), None, 8, within="sorted"),
    ],
)
def test_any_open_source_is_read_in_its_own_order(source):
    inner = source()
    expected = np.concatenate([inner.examples(t, 0, 8) for t in range(8)]).tolist()
    sampler = BatchSampler(VariedBatches(source(), [5, 20, 7, 8]))
    got = [i for batch in sampler for i in batch]
    assert got == expected[: len(got)]
    assert len(got) == 40
    later = BatchSampler(VariedBatches(source(), [5, 20, 7, 8]))
    later.load_state_dict(sampler.state_dict(step=2))
    assert [i for batch in later for i in batch] == expected[25:40]


def test_a_schedule_ends_with_the_data_of_its_source():
    source = VariedBatches(Shuffle(50, 1, epochs=2, tail="wrap"), linear(4, 20, duration=4))
    sizes = [source.size(t) for t in range(source.steps)]
    assert sizes == [4, 8, 12, 16, 20, 20, 20]
    assert source.position(source.steps) <= 100 < source.position(source.steps + 1)
    assert not source.exists(source.steps)
    assert len(BatchSampler(source)) == 7
    assert [source.step_at(source.position(t)) for t in range(8)] == list(range(8))


def test_far_positions_are_known_at_once_and_state_is_small():
    source = VariedBatches(
        Shuffle(10**9, 256), linear(256, 4096, duration=100_000), multiple=256, round="nearest"
    )
    sampler = BatchSampler(source, shape={"length": linear(512, 4096, duration=1000)})
    sampler.seek(step=150_000)
    batch = sampler.batch(150_000)
    assert len(batch) == 4096
    assert batch.shape == {"length": 4096}
    assert len(str(sampler.state_dict())) < 1000


def test_batches_travel_with_their_shape():
    sampler = BatchSampler(Shuffle(100, 8), shape={"crop": 16, "frames": [1, 4]})
    for number in range(3):
        batch = sampler.batch(number)
        there = pickle.loads(pickle.dumps(batch))
        assert there == batch == list(batch)
        assert there.shape == {"crop": 16, "frames": min(1 + 3 * number, 4)}
        assert batch[1:3] == [batch[1], batch[2]]
        assert there.step == number
        assert len(pickle.dumps(batch)) < 800


def test_whole_batches_reach_joined_data_sets():
    joined = Joined({"a": list("abcdef"), "b": list("xyz")})
    shaped = Shaped(joined, lambda letter, times: letter * times, default=1)
    batch = BatchSampler(Shuffle(9, 4, seed=2), shape=3).batch(0)
    assert shaped.__getitems__(batch) == [joined[i] * 3 for i, _ in batch]
    assert shaped[2] == "c"
    assert shaped[2, 2] == "cc"
    assert len(shaped) == 9
    read = Shaped(joined, read=lambda data, i, frames: (data[i], frames))
    assert read[1, 5] == ("b", 5)


def test_shapes_are_rounded_to_multiples():
    shapes = Shapes(
        {"crop": linear(100, 224, duration=4), "frames": lambda t: 1 + t}, multiple={"crop": 32}
    )
    assert [shapes(t) for t in range(3)] == [
        {"crop": 96, "frames": 1},
        {"crop": 128, "frames": 2},
        {"crop": 160, "frames": 3},
    ]
    assert shapes.on(np.arange(3))["crop"].tolist() == [96, 128, 160]


def test_a_share_of_the_run_is_of_the_steps():
    sampler = BatchSampler(Shuffle(40, 4, epochs=1), shape=linear(10, 20, duration="100%"))
    assert [sampler.batch(t).shape for t in (0, 5, 9)] == [10, 15, 19]


def test_a_source_that_listens_keeps_its_shape():
    class Easy:
        def value(self, t):
            return 0.5

        def observe(self, t, **signals): ...

        def state_dict(self):
            return {}

        def load_state_dict(self, state): ...

    source = Curriculum(np.arange(40.0), Feedback(Easy(), lag=1), 4, steps=5)
    assert {batch.shape for batch in BatchSampler(source, shape=7)} == {7}
    with pytest.raises(PlanError, match="does not listen"):
        VariedBatches(source, [4, 8])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: BatchSampler(varied([8, 8, 6, 4]), ranks=4, rank=0), "step 2 .*4 and 8"),
        (lambda: varied(linear(4, 8, duration=8)).size(1), "step 1.*4 and 5.*round='nearest'"),
        (lambda: varied([4, 6, 8], multiple=4), "step 1.*4 and 8"),
        (lambda: varied([4, 0]), "step 1"),
        (lambda: varied([[4], [4]]), "number of each step"),
        (lambda: varied("4"), "number of each step"),
        (lambda: varied(4, round="up"), "nearest"),
        (lambda: VariedBatches(Shuffle(50, 8, epochs=1), SIZES), "tail='wrap'"),
        (lambda: VariedBatches(varied(), SIZES), "one stream"),
        (lambda: varied().step_at(5), "4 and 8"),
        (lambda: Shapes({}), "shape"),
        (lambda: Shapes({"crop": 16}, multiple={"crops": 2}), "crop"),
        (lambda: Shapes(float("nan"))(0), "finite"),
        (lambda: Shaped([1]), "fit"),
        (lambda: Shaped([1], lambda x, s: x)[0], "default"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, match):
    with pytest.raises(PlanError, match=match):
        make()


def test_another_shape_is_another_plan():
    state = BatchSampler(Shuffle(40, 4), shape=16).state_dict(step=2)
    with pytest.raises(PlanError, match="shape"):
        BatchSampler(Shuffle(40, 4), shape=32).load_state_dict(state)
    with pytest.raises(PlanError, match="shape"):
        BatchSampler(Shuffle(40, 4)).load_state_dict(state)
    state = BatchSampler(varied()).state_dict(step=2)
    with pytest.raises(PlanError, match="sizes"):
        BatchSampler(varied([4, 8])).load_state_dict(state)


torch = pytest.importorskip("torch")


class Images(torch.utils.data.Dataset):
    """Example i is an image full of i."""

    def __len__(self):
        return 50

    def __getitem__(self, i):
        return torch.full((8, 8), float(i))


def crop(image, shape):
    return image[: shape["crop"], : shape["crop"]]


def shaped_sampler():
    return BatchSampler(varied(), shape={"crop": [8, 4, 2, 2, 4, 8]})


def shapes_of(loader):
    return [(batch.shape, batch[:, 0, 0].tolist()) for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_make_every_step_in_its_shape(workers):
    expected = [
        ((len(b), b.shape["crop"], b.shape["crop"]), b.indices.tolist()) for b in shaped_sampler()
    ]
    data = Shaped(Images(), crop)
    loader = torch.utils.data.DataLoader(data, batch_sampler=shaped_sampler(), num_workers=workers)
    assert shapes_of(loader) == expected
    loaders = pytest.importorskip("torchdata.stateful_dataloader")

    def stateful():
        return loaders.StatefulDataLoader(data, batch_sampler=shaped_sampler(), num_workers=workers)

    first, seen = stateful(), []
    for batch in first:
        seen.append((batch.shape, batch[:, 0, 0].tolist()))
        if len(seen) == 3:
            break
    second = stateful()
    second.load_state_dict(first.state_dict())
    assert seen + shapes_of(second) == expected
