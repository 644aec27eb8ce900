"""Samplers inside PyTorch's and torchdata's loaders, with workers: nothing is lost or repeated."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader, Dataset  # noqa: E402

from trainplan import PlanError  # noqa: E402
from trainplan.data import BatchSampler, Shuffle  # noqa: E402


class Numbers(Dataset):
    """Example i is the number i."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return i


def ids(batches):
    return [batch.tolist() for batch in batches]


def take(iterator, number):
    return [next(iterator).tolist() for _ in range(number)]


def sampler_of(n=103, size=8, **kwargs):
    return BatchSampler(Shuffle(n, size, seed=1, epochs=3), **kwargs)


WORKERS = [0, 2]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_loader_gives_the_batches_of_the_sampler(workers):
    expected = [list(b) for epoch in range(3) for b in sampler_of_epoch(epoch)]
    loader = DataLoader(Numbers(103), batch_sampler=sampler_of(), num_workers=workers)
    assert len(loader) == 12
    assert [batch for _ in range(3) for batch in ids(loader)] == expected


def sampler_of_epoch(epoch):
    sampler = sampler_of()
    sampler.seek(epoch=epoch)
    return sampler


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("step", [0, 5, 11, 12, 17, 36])
def test_a_plain_loader_goes_on_from_the_number_of_steps(workers, step):
    expected = [list(b) for epoch in range(3) for b in sampler_of_epoch(epoch)]
    first = sampler_of()
    loader = DataLoader(Numbers(103), batch_sampler=first, num_workers=workers)
    seen, done = [], 0
    for _ in range(3):
        for batch in loader:
            if done == step:
                break
            seen.append(batch.tolist())
            done += 1
        if done == step:
            break
    second = sampler_of()
    second.load_state_dict(first.state_dict(step=step))
    loader = DataLoader(Numbers(103), batch_sampler=second, num_workers=2 - workers)
    while second.step < 36:
        seen += ids(loader)
    assert seen == expected


def test_a_plain_loader_with_workers_does_not_know_what_was_used():
    sampler = sampler_of()
    iterator = iter(DataLoader(Numbers(103), batch_sampler=sampler, num_workers=1))
    take(iterator, 3)
    assert sampler.step > 3
    with pytest.raises(PlanError, match="up to 2 batches"):
        sampler.state_dict()
    assert sampler.state_dict(consumed=3)["step"] == 3
    alone = sampler_of()
    iterator = iter(DataLoader(Numbers(103), batch_sampler=alone))
    take(iterator, 3)
    assert alone.state_dict()["step"] == 3


@pytest.mark.parametrize(
    ("workers", "factor", "ahead"), [(1, 2, 2), (2, 2, 4), (2, 4, 8), (4, 2, 8)]
)
def test_how_far_a_loader_reads_ahead_is_known(workers, factor, ahead):
    sampler = BatchSampler(Shuffle(1000, 4))
    loader = DataLoader(
        Numbers(1000), batch_sampler=sampler, num_workers=workers, prefetch_factor=factor
    )
    iterator = iter(loader)
    take(iterator, 5)
    assert sampler._reader.ahead == ahead == sampler.step - 5


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("step", [1, 7, 12, 20])
def test_a_stateful_loader_goes_on_exactly(workers, step):
    loaders = pytest.importorskip("torchdata.stateful_dataloader")

    def loader():
        return loaders.StatefulDataLoader(
            Numbers(103), batch_sampler=sampler_of(), num_workers=workers
        )

    expected = [list(b) for epoch in range(3) for b in sampler_of_epoch(epoch)]
    first, seen = loader(), []
    while len(seen) < step:
        for batch in first:
            seen.append(batch.tolist())
            if len(seen) == step:
                state = first.state_dict()
                break
    second = loader()
    second.load_state_dict(state)
    while len(seen) < 36:
        before = len(seen)
        seen += ids(second)
        assert len(seen) > before or step % 12 == 0
    assert seen == expected


def test_a_samplers_own_state_beside_a_stateful_loader_allows_other_workers():
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    first = sampler_of()
    loader = loaders.StatefulDataLoader(Numbers(103), batch_sampler=first, num_workers=2)
    iterator = iter(loader)
    seen = take(iterator, 5)
    inner = loader.state_dict()["_snapshot"]["_main_snapshot"]["_index_sampler_state"]
    second = sampler_of()
    second.load_state_dict(inner)
    loader = loaders.StatefulDataLoader(Numbers(103), batch_sampler=second, num_workers=0)
    seen += ids(loader)
    assert seen == [list(b) for b in sampler_of_epoch(0)]


@pytest.mark.parametrize("workers", WORKERS)
def test_hugging_face_data_sets_take_the_batches(workers):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"x": list(range(103))})
    loader = DataLoader(data, batch_sampler=sampler_of(), num_workers=workers)
    assert [batch["x"].tolist() for batch in loader] == [list(b) for b in sampler_of_epoch(0)]
