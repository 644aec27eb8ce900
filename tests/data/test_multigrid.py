"""Multigrid schedules keep the cost of a step, and their batches follow them to the step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import (
    BatchSampler,
    MultigridBatches,
    MultigridSchedule,
    ShortCycleBatchSampler,
    Shuffle,
    short_cycle_sizes,
)

KINETICS = {"steps": [0, 94, 154, 196], "epochs": 239, "crop": 224, "frames": 32}
TOY = {"steps": [0, 8, 12], "epochs": 16, "crop": 16, "frames": 8}


def grid_of(**changes):
    given = TOY | changes
    return MultigridSchedule.from_step_schedule(given.pop("steps"), given.pop("epochs"), **given)


def test_kinetics_takes_a_third_of_the_steps():
    grid = grid_of(**KINETICS)
    ends = [phase.end for phase in grid.phases]
    assert ends == [73, 110, 142, 158, 205, 228, 248, 259, 291, 308, 322, 329, 358]
    assert 3 < grid.fewer_steps < 4
    assert grid.rate_at(34, 0.1, warmup=34, start=0.01) == pytest.approx(0.8)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=4),
    st.sampled_from([(1, 32), (1, 224), (8, 16), (32, 224)]),
    st.sampled_from([(True, True), (True, False), (False, True)]),
    st.floats(0.5, 3.0),
)
def test_every_step_costs_about_the_same(lengths, full, cycles, factor):
    edges = [0, *np.cumsum(lengths).tolist()]
    frames, crop = full
    grid = grid_of(
        steps=edges[:-1],
        epochs=edges[-1],
        frames=frames,
        crop=crop,
        long_cycle=cycles[0],
        short_cycle=cycles[1],
        epoch_factor=factor,
    )
    assume(grid.epochs > 0)
    ends = [phase.end for phase in grid.phases]
    assert ends == sorted(ends)
    assert ends[-1] == grid.epochs
    assert len(grid.boundaries) == len(grid.relative_rates)
    whole = frames * crop**2
    for phase in grid.phases:
        for batch, side in grid.cycle(phase):
            assert 0.5 < batch * phase.frames * side**2 / whole < 2
    # Evaluations are in order, and one is at the end of each phase that has epochs.
    found = grid.evaluations
    assert found == sorted(set(found))
    assert {end - 1 for _, start, end in grid.spans() if end > start} <= set(found)


def test_images_are_traded_for_pixels_alone():
    grid = grid_of(crop=224, frames=1)
    assert [(p.factor, p.crop) for p in grid.phases[:2]] == [(2, 158), (1, 224)]
    assert len(grid.phases) == 5
    batches = MultigridBatches(Shuffle(600, 8), grid)
    assert batches.shapes(0) == {"crop": 112}


def test_batches_follow_the_schedule():
    grid = grid_of()
    batches = MultigridBatches(Shuffle(512, 16, seed=1), grid)
    assert batches.starts[-1] == batches.steps
    for phase, start, end, first in zip(
        *zip(*grid.spans(), strict=True), batches.starts[:-1], strict=True
    ):
        if end == start:
            continue
        assert batches.phase_at(first) == phase
        assert batches.step_of(start) == first
        cycle = grid.cycle(phase, 16)
        for k in range(3):
            if batches.phase_at(first + k) is phase:
                size, crop = cycle[k]
                assert batches.size(first + k) == size
                assert batches.shapes(first + k) == {"crop": crop, "frames": phase.frames}
    # As many clips as the epochs have, to within a step of each phase.
    seen = batches.position(batches.steps)
    assert abs(seen - grid.epochs * 512) < 256 * len(grid.phases)
    assert batches.evaluations[-1] == batches.steps
    assert batches.epoch_at(0) == 0


@pytest.mark.parametrize("warmup", [0, 2, 9])
def test_the_rate_in_steps_is_that_of_the_epochs(warmup):
    grid = grid_of()
    batches = MultigridBatches(Shuffle(5120, 16), grid)
    lr = batches.lr(0.05, warmup=warmup, start=0.005)
    step_length = max(p.factor for p in grid.phases) * 16 * 2 / 5120
    for step in range(batches.steps):
        epoch = batches.epoch_at(step)
        near = [
            grid.rate_at(max(e, 0), 0.05, warmup=warmup, start=0.005)
            for e in (epoch - step_length, epoch, epoch + step_length)
        ]
        assert min(near) - 1e-9 <= lr(step) <= max(near) + 1e-9
    assert lr(0) == (0.005 if warmup else pytest.approx(0.4))
    assert lr(batches.steps - 1) == pytest.approx(0.0005)


@pytest.mark.parametrize("step", [0, 1, 7, 40])
def test_a_run_goes_on_with_other_ranks(step):
    def sampler(**options):
        return BatchSampler(MultigridBatches(Shuffle(512, 16, seed=1), grid_of()), **options)

    whole = [list(batch) for batch in sampler()]
    first = sampler(ranks=4, rank=1)
    state = first.state_dict(step=step)
    ranks = [sampler(ranks=2, rank=r) for r in range(2)]
    for each in ranks:
        each.load_state_dict(state)
    parts = [list(each) for each in ranks]
    assert [[*a, *b] for a, b in zip(*parts, strict=True)] == whole[step:]
    assert len(str(state)) < 500


def test_coarse_clips_show_up_to_the_time_of_whole_ones():
    grid = grid_of()
    random = np.random.default_rng(0)
    strides = set()
    for _ in range(100):
        places = grid.clip_frames(40, 2, 2, random)
        assert 0 <= places[0] < places[-1] < 40
        strides |= set(np.diff(places).tolist())
    assert strides == set(range(2, grid.largest_stride(grid.phases[0], 2) + 1))
    assert grid.clip_frames(3, 8, 2, random).tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert grid.shortest_side(256, 11) == 176


def test_phases_that_are_rounded_away_are_skipped():
    grid = grid_of(steps=[0, 1, 2], epochs=3)
    assert any(start == end for _, start, end in grid.spans())
    batches = MultigridBatches(Shuffle(512, 16), grid)
    assert all(
        batches.starts[k] == batches.starts[k + 1]
        for k, (_, start, end) in enumerate(grid.spans())
        if start == end
    )
    lr = batches.lr(0.1)
    assert lr(batches.steps - 1) > 0


def test_the_short_cycle_over_another_sampler():
    sizes = short_cycle_sizes(4, 158, 224)
    found = list(ShortCycleBatchSampler(range(50), sizes, drop_last=False))
    assert [i for batch in found for i, _ in batch] == list(range(50))
    assert [crop for batch in found for crop in {c for _, c in batch}][:4] == [112, 158, 158, 112]
    full = list(ShortCycleBatchSampler(range(50), sizes))
    assert full == [batch for batch in found if len(batch) >= 4]


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: grid_of(steps=[0]), "steps"),
        (lambda: grid_of(steps=[1, 3]), "steps"),
        (lambda: grid_of(steps=[0, 16]), "steps"),
        (lambda: grid_of(long_cycle=False, short_cycle=False), "short_cycle"),
        (lambda: grid_of(long_factors=[]), "long_factors"),
        (lambda: grid_of(crop=0), "crop"),
        (lambda: ShortCycleBatchSampler(range(3), []), "sizes"),
        (lambda: MultigridBatches(Shuffle(512, 16, epochs=2), grid_of()), "source"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
