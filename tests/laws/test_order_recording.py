"""The recorded run: whole files, gone on with after a stop, and true to what was trained."""

from __future__ import annotations

import json
from collections import namedtuple

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import trainplan as tp  # noqa: E402
from laws.order_tasks import classify, examples, flat, network, weights  # noqa: E402
from trainplan.errors import PlanError  # noqa: E402
from trainplan.laws.order import (  # noqa: E402
    OrderEstimator,
    OrderRecorder,
    OrderRun,
    batch_noise,
    train_in_order,
)


def start(lr=0.02):
    model = network()
    return model, torch.optim.Adam(model.parameters(), lr=lr)


@pytest.mark.parametrize("keep_moments", [True, False])
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_stopped_run_goes_on_bit_by_bit(stop, keep_moments, tmp_path):
    batches = examples(6)
    for name in ("whole", "stopped"):
        model, optimizer = start()
        with OrderRecorder(tmp_path / name, model, optimizer, keep_moments=keep_moments):
            order = range(6) if name == "whole" else range(stop)
            train_in_order(model, optimizer, classify, batches, order)
    model, optimizer = start(lr=7.0)  # replaced only if the run says so: rates belong to the loop
    optimizer.param_groups[0]["lr"] = 0.02
    with torch.no_grad():
        model[0].weight.zero_()
    with OrderRecorder(tmp_path / "stopped", model, optimizer, resume=True) as recorder:
        assert recorder.t == stop
        train_in_order(model, optimizer, classify, batches, start=recorder.t)
    whole, resumed = OrderRun(tmp_path / "whole"), OrderRun(tmp_path / "stopped")
    assert resumed.steps == whole.steps == 6
    for t in range(7):
        assert torch.equal(whole.parameters(t), resumed.parameters(t))
        assert whole.has_moments(t) == resumed.has_moments(t)
    for a, b in zip(whole.moments(6).values(), resumed.moments(6).values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_half_written_step_does_not_count(tmp_path):
    model, optimizer = start()
    with OrderRecorder(tmp_path, model, optimizer):
        train_in_order(model, optimizer, classify, examples(4))
    (tmp_path / "step-000004.pt").unlink()  # its moments were written, its weights were not
    model, optimizer = start()
    with OrderRecorder(tmp_path, model, optimizer, resume=True) as recorder:
        assert recorder.t == 3
    assert torch.equal(weights(model), OrderRun(tmp_path).parameters(3))


def test_without_kept_moments_only_the_first_and_the_newest_are_there(tmp_path):
    model, optimizer = start()
    with OrderRecorder(tmp_path, model, optimizer, keep_moments=False):
        train_in_order(model, optimizer, classify, examples(4))
    run = OrderRun(tmp_path)
    assert [t for t in range(5) if run.has_moments(t)] == [0, 4]
    with pytest.raises(PlanError, match="keep_moments"):
        run.moments(2)


def test_a_folder_holds_one_run(tmp_path):
    model, optimizer = start()
    OrderRecorder(tmp_path, model, optimizer).close()
    with pytest.raises(PlanError, match="resume=True"):
        OrderRecorder(tmp_path, model, optimizer)
    other = nn.Linear(2, 2)
    with pytest.raises(PlanError, match="other parameters"):
        OrderRecorder(tmp_path, other, torch.optim.SGD(other.parameters(), lr=0.1), resume=True)
    with pytest.raises(PlanError, match="no recorded run"):
        OrderRecorder(tmp_path / "empty", model, optimizer, resume=True)
    (tmp_path / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(PlanError, match="format"):
        OrderRun(tmp_path)


def test_a_closed_recorder_hears_nothing(tmp_path):
    model, optimizer = start()
    with OrderRecorder(tmp_path, model, optimizer):
        train_in_order(model, optimizer, classify, examples(2))
    train_in_order(model, optimizer, classify, examples(2))
    assert OrderRun(tmp_path).steps == 2


def test_an_order_that_is_over_is_not_trained_on(tmp_path):
    model, optimizer = start()
    with (
        OrderRecorder(tmp_path, model, optimizer, order=[1, 0]),
        pytest.raises(PlanError, match="2 steps"),
    ):
        train_in_order(model, optimizer, classify, examples(3))


def test_running_statistics_are_refused_and_fixed_buffers_are_not(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        OrderRecorder(tmp_path / "a", model, optimizer),
        pytest.raises(PlanError, match="batch norm"),
    ):
        train_in_order(model, optimizer, classify, examples(2))
    model.eval()
    with OrderRecorder(tmp_path / "b", model, optimizer) as recorder:
        train_in_order(model, optimizer, classify, examples(2))
    assert recorder.t == 2


def test_only_trained_parameters_are_kept_and_frozen_ones_must_be_the_same(tmp_path):
    def build():
        model = network()
        model[0].requires_grad_(False)
        return model, torch.optim.Adam(model[2].parameters(), lr=0.02)

    model, optimizer = build()
    batches = examples(4)
    with OrderRecorder(tmp_path, model, optimizer):
        train_in_order(model, optimizer, classify, batches)
    assert OrderRun(tmp_path).layout.size == 10
    estimator = OrderEstimator(tmp_path, *build(), classify, batches)
    retrained, fresh = build()
    train_in_order(retrained, fresh, classify, batches, [2, 0, 3, 1])
    estimate = estimator.estimate([2, 0, 3, 1]).parameters
    assert torch.allclose(estimate["2.weight"], retrained[2].weight, atol=1e-3)
    other, fresh = build()
    other[0].weight.data.add_(1.0)
    with pytest.raises(PlanError, match="frozen parameters or buffers differ"):
        OrderEstimator(tmp_path, other, fresh, classify, batches)


def test_a_plan_on_the_same_optimizer_is_recorded_with_its_rates(tmp_path):
    model, optimizer = start()
    plan = tp.Plan(horizon=4, lr=tp.schedules.cosine(0.02))
    run = tp.torch.attach(plan, optimizer)
    with OrderRecorder(tmp_path, model, optimizer):
        train_in_order(model, optimizer, classify, examples(4))
    recorded = [OrderRun(tmp_path).options(t)[0]["lr"] for t in range(4)]
    assert recorded == [plan.at(t)["lr"] for t in range(4)]
    estimator = OrderEstimator(tmp_path, model, optimizer, classify, examples(4))
    estimator.estimate([3, 1, 2, 0])
    assert run.t == 4  # the estimate steps a copy, which the plan does not hear

    retrained, fresh = start()
    tp.torch.attach(plan, fresh)
    train_in_order(retrained, fresh, classify, examples(4), [3, 1, 2, 0])
    found = estimator.estimate([3, 1, 2, 0]).parameters
    error = (flat(found) - weights(retrained)).norm()
    assert error < 0.1 * (weights(model) - weights(retrained)).norm()


def test_recording_changes_nothing_in_training(tmp_path):
    recorded, plain = start(), start()
    with OrderRecorder(tmp_path, *recorded):
        train_in_order(*recorded, classify, examples(5))
    train_in_order(*plain, classify, examples(5))
    assert torch.equal(weights(recorded[0]), weights(plain[0]))


def test_batch_noise_depends_on_the_batch_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with batch_noise(0, 1):
        first = torch.rand(3)
    with batch_noise(0, 2):
        second = torch.rand(3)
    assert torch.equal(torch.rand(1), expected)
    assert not torch.equal(first, second)
    with batch_noise(1, 1):
        assert not torch.equal(torch.rand(3), first)


def test_a_run_that_the_disk_cannot_hold_is_refused_at_its_first_step(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(free=20_000))
    model, optimizer = start()
    with (
        OrderRecorder(tmp_path / "a", model, optimizer, order=range(6)) as recorder,
        pytest.raises(PlanError, match=r"20\.0 kB are free.*keep_moments=False"),
    ):
        train_in_order(model, optimizer, classify, examples(6))
    assert recorder.t == 1
    model, optimizer = start()
    options = {"order": range(6), "keep_moments": False}
    with OrderRecorder(tmp_path / "b", model, optimizer, **options) as recorder:
        train_in_order(model, optimizer, classify, examples(6))
    assert recorder.t == 6


def test_the_optimizer_that_accelerate_wraps_is_recorded(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(*start())
    with OrderRecorder(tmp_path, model, optimizer) as recorder:
        train_in_order(model, optimizer, classify, examples(4))
    assert recorder.t == 4
    estimator = OrderEstimator(tmp_path, model, optimizer, classify, examples(4))
    plain, fresh = start()
    train_in_order(plain, fresh, classify, examples(4), [3, 1, 2, 0])
    found = flat(estimator.estimate([3, 1, 2, 0]).parameters)
    error = (found - weights(plain)).norm()
    assert error < 0.1 * (weights(model) - weights(plain)).norm()
