"""Runs that are cut off at random places and go on elsewhere show exactly what they would have.

What survives an interruption is the saved state, as text. Everything else is built anew, as often
as not for another number of ranks, other accumulation, or another loader.
"""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
import pytest

from trainplan import schedules as s
from trainplan.data import (
    BatchSampler,
    Curriculum,
    Mixture,
    Replay,
    Shuffle,
    Stage,
    VariedBatches,
    pacing,
)

torch = pytest.importorskip("torch")
loaders = pytest.importorskip("torchdata.stateful_dataloader")

from torch.utils.data import DataLoader, Dataset  # noqa: E402

SIZE = 24
"""Examples of a step: they can be shared out among 1 to 4 ranks, once or twice."""
PER_SOURCE = 14
HARD = np.random.default_rng(5).integers(0, 40, 150)
DOMAINS = {"web": 150, "math": 40, "code": 70}
RISING = {"web": s.linear(1.0, 0.5, duration=9), "math": 0.3, "code": s.linear(0.1, 0.4)}
TASKS = [Stage(5, {name: 3, "replay": 1}) for name in DOMAINS]
CROPS = [8, 8, 12, 16, 16, 8, 20, 24, 24, 8, 12, 16, 16, 20]


def curriculum(**kwargs):
    return Curriculum(HARD, pacing("linear", 0.3, full_at=8), SIZE, 2, steps=14, **kwargs)


def mixture(exhausted="repeat", exact=True, **kwargs):
    given = {"seed": 4, "steps": 14, "exhausted": exhausted, "exact": exact}
    return Mixture(DOMAINS, RISING, SIZE, **given | kwargs)


SOURCES = {
    "shuffle": lambda: Shuffle(115, SIZE, 1, epochs=3),
    "shuffle, wrapped": lambda: Shuffle(115, SIZE, 1, epochs=3, tail="wrap"),
    "curriculum by pass": curriculum,
    "curriculum by draw": lambda: curriculum(within="draw"),
    "mixture, repeat": mixture,
    "mixture, stop": lambda: mixture("stop"),
    "mixture, cover": lambda: mixture("cover"),
    "mixture, drop": lambda: mixture("drop"),
    "draws, repeat": lambda: mixture(exact=False),
    "draws, drop": lambda: mixture("drop", exact=False),
    "mixed policies": lambda: mixture({"web": "stop", "math": "drop"}, max_epochs={"code": 2}),
    "mixture of curricula": lambda: mixture(
        difficulty={"web": HARD}, pacing=pacing("linear", 0.3, full_at=8)
    ),
    "quotas of micro-batches": lambda: mixture("drop", per=24),
    "replay": lambda: Mixture(DOMAINS, TASKS, SIZE, 4, steps=14, replay=Replay("past")),
    "varied batches": lambda: VariedBatches(curriculum(), [24, 24, 48, 72, 24, 48, 24]),
    "varied batches and shapes": lambda: VariedBatches(
        mixture(steps=20), [24, 48, 24, 72, 48, 24, 24], shape=[8, 8, 16, 16, 24, 24, 24]
    ),
}


class Items(Dataset):
    """An item is what was asked for: the number of an example, or that and its shape."""

    def __len__(self):
        return 10**6

    def __getitem__(self, asked):
        return asked


@dataclass(frozen=True)
class Layout:
    """How a run is shared out, and what reads it."""

    ranks: int = 1
    accumulation: int = 1
    together: bool = False  # one sampler yields the batches of all ranks in turn
    reader: str = "loop"
    workers: int = 0

    def samplers(self, name):
        ranks = ["all"] if self.together else range(self.ranks)
        shape = CROPS if name == "curriculum by draw" else None
        return [
            BatchSampler(
                SOURCES[name](),
                ranks=self.ranks,
                rank=rank,
                accumulation=self.accumulation,
                shape=shape,
            )
            for rank in ranks
        ]

    def open(self, sampler):
        if self.reader == "loop":
            return sampler
        kind = DataLoader if self.reader == "loader" else loaders.StatefulDataLoader
        return kind(Items(), batch_sampler=sampler, num_workers=self.workers, collate_fn=list)


def batches(loader):
    """All that is left of a run: the rest of the epoch, and the epochs after it."""
    for opened in itertools.count():
        some = False
        for batch in loader:
            some = True
            yield list(batch)
        # A loader that went on from an epoch's end begins with an empty pass.
        if not some and opened:
            return


def in_order(shares):
    """The items of a stretch of the run, from the batches of each of its samplers."""
    return [item for turn in zip(*shares, strict=True) for batch in turn for item in batch]


def begin(name, layout, used, beyond):
    """A run up to an interruption: what counts of it, and its state, the same on all ranks."""
    shares, states = [], []
    for sampler in layout.samplers(name):
        loader = layout.open(sampler)
        reading = batches(loader)
        shares.append(list(itertools.islice(reading, used)))
        if layout.reader == "stateful":
            states.append(json.dumps(loader.state_dict()))
        else:
            states.append(json.dumps(sampler.state_dict(consumed=used)))
        # It went on for a while after the state was saved, for nothing.
        list(itertools.islice(reading, beyond))
        reading.close()
    if layout.reader != "stateful":
        assert len(set(states)) == 1
    return in_order(shares), [json.loads(state) for state in states]


def go_on(name, layout, states):
    shares = []
    for rank, sampler in enumerate(layout.samplers(name)):
        if layout.reader == "stateful":
            loader = layout.open(sampler)
            loader.load_state_dict(states[rank])
        else:
            sampler.load_state_dict(states[0])
            loader = layout.open(sampler)
        shares.append(list(batches(loader)))
    return in_order(shares)


def whole_run(name):
    (sampler,) = Layout().samplers(name)
    steps = list(batches(sampler))
    assert len(steps) > 5
    return [item for step in steps for item in step], len(steps)


def check(name, coins, first, second):
    """One run under the first layout up to a random place, then under the second."""
    expected, steps = whole_run(name)
    per_step = first.samplers(name)[0].per_step
    if first == second:
        used = coins.randint(0, steps * per_step)  # also between the batches of one step
    else:
        used = coins.randint(0, steps) * per_step
    seen, states = begin(name, first, used, coins.randint(0, 3))
    assert seen == expected[: len(seen)]
    assert seen + go_on(name, second, states) == expected, (first, second, used)


def a_layout(coins):
    reader = coins.choice(["loop", "loop", "loader"])
    return Layout(coins.randint(1, 4), coins.randint(1, 2), coins.random() < 0.2, reader)


@pytest.mark.parametrize("name", SOURCES)
def test_a_run_goes_on_where_it_was_cut_off(name):
    coins = random.Random(crc32(name.encode()))
    for point in range(PER_SOURCE):
        first = a_layout(coins)
        if point % 4 == 0:
            first = replace(first, reader="stateful")
        second = first if point % 2 == 0 else a_layout(coins)
        check(name, coins, first, second)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("name", "reader", "ranks"),
    [
        ("shuffle", "stateful", 1),
        ("curriculum by pass", "loader", 1),
        ("mixture, drop", "stateful", 1),
        ("draws, repeat", "loader", 2),
        ("varied batches and shapes", "stateful", 1),
        ("curriculum by draw", "loader", 1),
    ],
)
def test_what_workers_drew_ahead_is_not_lost_either(name, reader, ranks):
    coins = random.Random(crc32((name + reader).encode()))
    first = Layout(ranks=ranks, reader=reader, workers=2)
    # A plain loader's run goes on with another number of ranks and without workers.
    second = first if reader == "stateful" else Layout(ranks=3 - ranks, reader=reader)
    check(name, coins, first, second)
