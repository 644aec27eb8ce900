"""Loaders and Lightning show the rounds as they are, and after a stop the rest of them."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

import trainplan as tp  # noqa: E402

N = 60
WEIGHTS = np.random.default_rng(0).lognormal(0, 2, N)
SIZES = tp.data.cyclic_sizes(budget=3)


def sampler(**options):
    source = tp.data.WeightedSubsets(WEIGHTS, SIZES, 8, seed=1, **options)
    return tp.data.BatchSampler(source, ranks=1, rank=0)


def expected():
    return [list(batch) for batch in sampler()]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_shows_the_rounds_with_workers_and_goes_on(workers):
    loader = DataLoader(range(N), batch_sampler=sampler(), num_workers=workers)
    assert [batch.tolist() for batch in loader] == expected()
    part = sampler()
    loader = DataLoader(range(N), batch_sampler=part, num_workers=workers)
    seen = [batch.tolist() for batch in itertools.islice(loader, 11)]
    again = sampler()
    again.load_state_dict(part.state_dict(step=11))
    loader = DataLoader(range(N), batch_sampler=again, num_workers=workers)
    assert seen + [batch.tolist() for batch in loader] == expected()


def test_a_stateful_loader_goes_on_from_its_own_state():
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    loader = loaders.StatefulDataLoader(range(N), batch_sampler=sampler())
    seen = [batch.tolist() for batch in itertools.islice(loader, 7)]
    again = loaders.StatefulDataLoader(range(N), batch_sampler=sampler())
    again.load_state_dict(loader.state_dict())
    assert seen + [batch.tolist() for batch in again] == expected()


@pytest.mark.parametrize("stop", [3, 12])
def test_the_example_of_the_page_resumes_exactly_under_lightning(tmp_path, stop):
    pytest.importorskip("lightning")
    pytest.importorskip("torchdata")
    import with_weighted_rounds as example

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = example.fit(tmp_path / "whole")
        again = example.fit(tmp_path / "again", resume=tmp_path / "whole" / f"step={stop}.ckpt")
    torch.set_num_threads(threads)
    assert len(whole.seen) == example.steps
    assert again.seen == whole.seen[stop:]
    assert torch.equal(again.layer.weight, whole.layer.weight)
