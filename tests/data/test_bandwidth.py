"""Stages cover the run, one curve of the rate runs over them, and steps keep their size."""

import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trainplan as tp
from trainplan import MissingExtraError, PlanError
from trainplan.data import (
    BatchReplay,
    Strengths,
    bandwidth_stages,
    equal_cost_stages,
    greedy_bandwidths,
    rand_augment,
)
from trainplan.data.augmentation import weak_and_strong_views
from trainplan.data.bandwidth import DEIT_S_RESOLUTIONS


@settings(max_examples=10, deadline=None)
@given(st.integers(5, 400), st.integers(1, 20))
def test_stages_cover_the_run_and_the_rate_does_not_begin_anew(epochs, steps):
    stages = bandwidth_stages(epochs, warmup=2)
    assert stages.epochs == epochs
    whole = tp.schedules.cosine(1.0, warmup="2 epochs", duration=f"{epochs} epochs")
    knobs = {"lr": stages.lr(1.0), "whole": whole, "bandwidth": stages.bandwidth}
    plan = tp.Plan(epochs * steps, steps_per_epoch=steps, **knobs)
    t = np.arange(epochs * steps)
    assert (plan["lr"](t) == plan["whole"](t)).all()
    assert (plan["bandwidth"](t) == [stages.at(step / steps).bandwidth for step in t]).all()
    assert tp.Plan.from_yaml(plan.to_yaml()).digest == plan.digest


@pytest.mark.parametrize("replays", [None, (4, 4, 2, 2, 2, 2, 1, 1, 1, 1)])
@pytest.mark.parametrize("warmup", [20, "20%"])
def test_stages_of_equal_cost_cost_the_same_and_the_rate_has_no_jumps(replays, warmup):
    stages = equal_cost_stages(200, DEIT_S_RESOLUTIONS, warmup=warmup, replays=replays)
    costs = [s.epochs * s.replays * (s.bandwidth / 224) ** 2 for s in stages.stages]
    np.testing.assert_allclose(costs, 20, rtol=0.05)
    assert stages.cost * stages.epochs == pytest.approx(200, abs=1)
    plan = tp.Plan(stages.epochs, "epochs", lr=stages.lr(1.0), magnitude=stages.magnitude)
    rates = plan["lr"](np.linspace(0, stages.epochs, 5000))
    assert rates.max() == pytest.approx(1, abs=0.01)
    if warmup == "20%":  # 20 epochs are another share of each stage's total
        assert abs(np.diff(rates)).max() < 0.03
    assert [stages.at(e).magnitude for e in range(stages.epochs)] == [
        plan["magnitude"](e) for e in range(stages.epochs)
    ]


def test_the_global_batch_stays_the_same():
    stages = bandwidth_stages(100)
    for halvings in (0, 1, 3):
        found = stages.batches(128, devices=4, halvings=halvings)
        assert [batch * 4 * times for batch, times in found] == [4096] * 5
        assert found[-1] == (128 >> halvings, 8 << halvings)


def test_the_search_takes_the_smallest_sizes_that_keep_the_score():
    needs = (4, 4, 6, 8)
    runs = []

    def evaluate(run):
        runs.append(run)
        return 1.0 - 0.1 * sum(max(0, need - size) for need, size in zip(needs, run, strict=True))

    found = greedy_bandwidths(4, (8, 2, 4, 6), evaluate, tolerance=0.05)
    assert found.bandwidths == needs
    assert list(found.scores) == runs
    assert all(list(run) == sorted(run) for run in runs)
    assert greedy_bandwidths(4, (2, 4, 6, 8), evaluate, tolerance=9).bandwidths == (2, 2, 2, 2)


def test_replayed_batches_go_on_from_their_state():
    torch = pytest.importorskip("torch")
    batches = [(torch.randn(8, 2), torch.arange(8) + 8 * k) for k in range(9)]
    make = lambda seed=0: BatchReplay(3, 3, pieces=4, seed=seed)  # noqa: E731
    whole = make()
    found = [whole(*batch) for batch in batches]
    for k, ((x, y), (images, labels)) in enumerate(zip(batches, found, strict=True)):
        assert torch.equal(images[:8], x)
        assert torch.equal(labels[:8], y)
        assert len(images) == 24
        assert set((labels // 8).tolist()) <= set(range(max(0, k - 2), k + 1))
        lookup = torch.cat([b[0] for b in batches])
        assert torch.equal(images, lookup[labels])
    first, again = make(), make()
    for batch in batches[:5]:
        first(*batch)
    again.load_state_dict(first.state_dict())
    rest = [again(*batch) for batch in batches[5:]]
    pairs = zip(rest, found[5:], strict=True)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)
    assert make()(*batches[0])[1].tolist() != make(1)(*batches[0])[1].tolist()
    assert BatchReplay(1, pieces=4)(*batches[0])[0] is batches[0][0]


def test_strengths_may_be_0():
    stages = equal_cost_stages(200)
    plan = tp.Plan(stages.epochs, steps_per_epoch=1, magnitude=stages.magnitude)
    strengths, t = Strengths(plan["magnitude"]), np.arange(stages.epochs)
    assert [strengths(step) for step in t] == plan["magnitude"](t).tolist()
    assert strengths.on(t)["shape"].tolist() == plan["magnitude"](t).tolist()
    assert strengths(0) == 0


def test_torchvision_gets_strengths_on_the_authors_scale(monkeypatch):
    """Its place is taken by a stand-in that keeps what it is given."""
    fake = types.ModuleType("torchvision.transforms.v2")
    fake.RandAugment = lambda **options: options
    fake.RandomResizedCrop = fake.ColorJitter = fake.RandomGrayscale = lambda *a, **k: (a, k)
    fake.RandomHorizontalFlip = lambda: "flip"
    fake.RandomApply = lambda *a, **k: "jitter"
    fake.Compose = list
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.v2"):
        monkeypatch.setitem(sys.modules, name, fake)
    assert rand_augment(9.0) == {"magnitude": 9, "num_magnitude_bins": 11}
    weak, strong = weak_and_strong_views(224)
    assert strong[: len(weak)] == weak
    monkeypatch.setitem(sys.modules, "torchvision.transforms.v2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'trainplan\[vision\]'"):
        rand_augment(3)


def refused():
    return {
        "bandwidths": lambda: bandwidth_stages(4),
        "magnitudes": lambda: bandwidth_stages(10, (4, 8), (1, 2, 3)),
        "base": lambda: bandwidth_stages(10, (4, 8), base=6),
        "per_device": lambda: bandwidth_stages(10).batches(256, devices=32),
        "replays": lambda: equal_cost_stages(200, replays=(1, 2)),
        "epochs": lambda: equal_cost_stages(1),
        "warmup": lambda: equal_cost_stages(200, warmup="20 epochs"),
        "candidates": lambda: greedy_bandwidths(3, (), len),
        "shape": lambda: Strengths(tp.schedules.linear(1, end=9)),
        "magnitude": lambda: rand_augment(11),
    }


@pytest.mark.parametrize("place", refused())
def test_what_cannot_be_meant_is_refused(place):
    with pytest.raises(PlanError) as error:
        refused()[place]()
    assert error.value.place == place


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda t: BatchReplay(2, pieces=3)(t.zeros(4)), "batch"),
        (lambda t: BatchReplay(2, pieces=2)(t.zeros(4), t.zeros(2)), "batch"),
        (lambda t: BatchReplay(2).load_state_dict({}), "state"),
    ],
)
def test_batches_that_cannot_be_replayed_are_refused(make, place):
    with pytest.raises(PlanError) as error:
        make(pytest.importorskip("torch"))
    assert error.value.place == place
