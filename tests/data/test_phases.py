"""A run in phases is the runs of its phases, one after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import (
    BatchSampler,
    Phase,
    PhaseCurriculum,
    completion_labels,
    percentile_length_filter,
)

PHASES = [
    Phase("short", 9e-5, 8, warmup=2),
    Phase("short", 7e-5, 8, warmup=2, schedule="linear"),
    Phase("long", 5e-5, 4, epochs=2, warmup="50%", reset_optimizer=False),
]
SIZES = {"long": 21, "short": 50}


@pytest.mark.parametrize("tail", ["drop", "short"])
def test_a_run_is_its_phases_one_after_the_other(tail):
    curriculum = PhaseCurriculum(PHASES, SIZES, seed=3, tail=tail)
    seen = [batch.indices for batch in BatchSampler(curriculum)]
    assert len(seen) == curriculum.steps == sum(curriculum.lengths)
    step, before = 0, 0
    for k, source in enumerate(curriculum.sources):
        offset = {"long": 0, "short": 21}[PHASES[k].data]
        for epoch in range(PHASES[k].epochs):
            sampler = BatchSampler(source)
            sampler.seek(epoch=epoch)
            for batch in sampler:
                assert (seen[step] == offset + batch.indices).all()
                assert curriculum.phase_at(step) == k
                assert curriculum.position(step) == before
                assert curriculum.step_at(before) == step
                before += len(seen[step])
                step += 1
    assert curriculum.phase_at(step) == len(PHASES)
    shown = np.concatenate(seen[: curriculum.lengths[0]])
    assert len(set(shown)) == len(shown) == (48 if tail == "drop" else 50)
    other = np.concatenate(seen[curriculum.starts[1] : curriculum.starts[2]])
    assert shown.tolist() != other.tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 3))
def test_rates_are_those_of_transformers(steps, batch, epochs):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    phases = [
        Phase("a", 9e-5, batch, epochs, warmup=min(3, epochs * steps - 1)),
        Phase("b", 3e-5, 1, warmup=1, schedule="linear"),
    ]
    curriculum = PhaseCurriculum(phases, {"a": steps * batch, "b": 7})
    assert curriculum.lengths == [steps * epochs, 7]
    expected = []
    for k, (phase, length) in enumerate(zip(phases, curriculum.lengths, strict=True)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(()))], lr=phase.peak_lr)
        make = transformers.get_cosine_schedule_with_warmup
        make = transformers.get_linear_schedule_with_warmup if k else make
        scheduler = make(optimizer, phase.warmup, length)
        for _ in range(length):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    rates = curriculum.lr_at(np.arange(curriculum.steps))
    assert rates == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert curriculum.plan()["lr"](curriculum.starts[1]) == 0
    assert curriculum.plan(1)["lr"](1) == rates[curriculum.starts[1] + 1]


def test_going_on_is_not_having_stopped():
    whole = [b.indices.tolist() for b in BatchSampler(PhaseCurriculum(PHASES, SIZES, seed=1))]
    for stop in range(1, len(whole), 3):
        sampler = BatchSampler(PhaseCurriculum(PHASES, SIZES, seed=1))
        drawing = iter(sampler)
        first = [next(drawing).indices.tolist() for _ in range(stop)]
        other = BatchSampler(PhaseCurriculum(PHASES, SIZES, seed=1), ranks=2, rank="all")
        other.load_state_dict(sampler.state_dict())
        halves = [batch.indices.tolist() for batch in other]
        rest = [a + b for a, b in zip(halves[::2], halves[1::2], strict=True)]
        assert first + rest == whole
    changed = BatchSampler(PhaseCurriculum(PHASES[:2], SIZES, seed=1))
    with pytest.raises(PlanError, match="phases"):
        changed.load_state_dict(sampler.state_dict())


def test_moments_are_cleared_where_a_phase_asks_for_it():
    torch = pytest.importorskip("torch")
    curriculum = PhaseCurriculum(PHASES, SIZES)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    cleared = []
    for step in range(curriculum.steps):
        if curriculum.begin_step(step, optimizer):
            cleared.append(step)
            assert not optimizer.state
        weight.sum().backward()
        optimizer.step()
    assert cleared == [curriculum.starts[1]]
    assert optimizer.state[weight]["step"] == curriculum.steps - curriculum.starts[1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.floats(0, 0.99))
def test_the_cap_keeps_at_least_its_share(lengths, p):
    cap, kept = percentile_length_filter(lengths, p)
    assert cap in lengths
    assert kept.size > int(p * len(lengths))
    assert max(lengths[i] for i in kept) == cap
    assert all(lengths[i] > cap for i in set(range(len(lengths))) - set(kept.tolist()))


def test_only_completions_have_labels():
    tokens = np.arange(1, 13).reshape(2, 6)
    labels = completion_labels(tokens, [2, 0], [5, 6])
    assert labels.tolist() == [[-100, -100, 3, 4, 5, -100], [7, 8, 9, 10, 11, 12]]


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: Phase("a", 0, 4), "peak_lr"),
        (lambda: Phase("a", 1e-3, 0), "batch_size"),
        (lambda: Phase("a", 1e-3, 4, warmup="long"), "warmup"),
        (lambda: Phase("a", 1e-3, 4, schedule="cosin"), "schedule"),
        (lambda: PhaseCurriculum([], SIZES), "phases"),
        (lambda: PhaseCurriculum(PHASES, SIZES, tail="wrap"), "tail"),
        (lambda: PhaseCurriculum([Phase("shrot", 1e-3, 4)], SIZES), "phases[0].data"),
        (lambda: PhaseCurriculum([Phase("long", 1e-3, 64)], SIZES), "phases[0].global_batch"),
        (lambda: PhaseCurriculum([Phase("long", 1e-3, 2)], SIZES), "phases[0].warmup"),
        (lambda: BatchSampler(PhaseCurriculum(PHASES, SIZES), ranks=8), "phases[2].batch_size"),
        (lambda: percentile_length_filter([]), "lengths"),
        (lambda: percentile_length_filter([3, 4], p=1.0), "p"),
        (lambda: completion_labels([[1, 2]], [2], [3]), "lengths[0]"),
        (lambda: completion_labels([[1, 2]], [1, 1], [2]), "tokens"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
