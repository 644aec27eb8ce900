"""The loop: stopping anywhere, sharing a prefix, or changing the number of jobs changes no bit."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import trainplan as tp
from trainplan import lab
from trainplan.lab.experiment import Arm
from trainplan.lab.job import SegmentJob
from trainplan.lab.store import RunDirectoryError, SegmentDirectory
from trainplan.lab.train import train_segment
from trainplan.lab.workload import WorkloadSpec

from .conftest import TINY_TEXT


def job(folder, spec, *, steps=12, plan=None, **changes):
    plan = plan or tp.Plan(horizon=steps, lr=tp.schedules.linear(0.02), weight_decay=0.01)
    settings = {
        "key": "ab",
        "seed": 3,
        "start": 0,
        "stop": steps,
        "directory": str(folder),
        "parent": None,
        "plan": plan.to_dict(),
        "workload": spec.to_dict(),
        "eval_every": 5,
        "eval_at_stop": True,
        "record_grad_norms": False,
        "keep_end": False,
    }
    return SegmentJob(**(settings | changes))


def never(step, loss):
    return False


def outcome_bits(outcome):
    return outcome.weights, outcome.rows_digest, outcome.tokens


SPECS = [
    WorkloadSpec("text", TINY_TEXT),
    WorkloadSpec("digits"),
    WorkloadSpec("lab.lab_workloads:build"),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.path)
@pytest.mark.parametrize("at", [1, 5, 11])
def test_stopping_after_any_step_and_resuming_changes_nothing(tmp_path, spec, at):
    whole = train_segment(job(tmp_path / "whole", spec), never)
    parts = job(tmp_path / "parts", spec)
    assert train_segment(parts, lambda step, loss: step == at) is None
    torch.manual_seed(99)
    assert outcome_bits(train_segment(parts, never)) == outcome_bits(whole)


def test_being_killed_between_two_checkpoints_changes_nothing(tmp_path, noisy):
    """After the checkpoint more rows were written, the last one in part."""
    whole = train_segment(job(tmp_path / "whole", noisy), never)
    parts = job(tmp_path / "parts", noisy)
    train_segment(parts, lambda step, loss: step == 6)
    with (tmp_path / "parts" / "rows.jsonl").open("ab") as rows:
        rows.write(b'{"step": 7, "loss": 1.0}\n{"step": 8, "lo')
    assert outcome_bits(train_segment(parts, never)) == outcome_bits(whole)


def test_a_controllers_state_survives_a_stop(tmp_path, noisy):
    lr = tp.schedules.ReduceOnPlateau(0.02, factor=0.5, patience=1)
    plan = tp.Plan(horizon=12, lr=lr)
    whole = train_segment(job(tmp_path / "whole", noisy, plan=plan), never)
    rates = [row["lr"] for row in SegmentDirectory(tmp_path / "whole").rows() if "lr" in row]
    assert len(set(rates)) > 1, "the controller must have acted for this test to mean something"
    for at in (3, 8):
        parts = job(tmp_path / f"parts{at}", noisy, plan=plan)
        train_segment(parts, lambda step, loss, at=at: step == at)
        assert outcome_bits(train_segment(parts, never)) == outcome_bits(whole)


def test_a_damaged_checkpoint_is_refused_and_not_deleted(tmp_path, noisy):
    parts = job(tmp_path / "parts", noisy)
    train_segment(parts, lambda step, loss: step == 6)
    path = tmp_path / "parts" / "resume.pt"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RunDirectoryError, match="to train that part again"):
        train_segment(parts, never)
    assert path.exists()


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, noisy):
    parts = job(tmp_path / "parts", noisy)
    train_segment(parts, lambda step, loss: step == 6)
    torch.save({"model": pytest.raises}, tmp_path / "parts" / "resume.pt")
    with pytest.raises(RunDirectoryError, match="cannot be restored"):
        train_segment(parts, never)


def test_the_plan_drives_the_tasks_own_knobs(tmp_path, noisy):
    plans = [tp.Plan(horizon=12, lr=0.02, dropout=p) for p in (0.0, 0.5)]
    weights = {
        train_segment(job(tmp_path / str(i), noisy, plan=plan), never).weights
        for i, plan in enumerate(plans)
    }
    assert len(weights) == 2


def test_a_plan_may_drive_the_tasks_knobs_alone(tmp_path, noisy):
    plans = [tp.Plan(horizon=12, dropout=0.3), tp.Plan(horizon=12, dropout=0.3, lr=0.01)]
    weights = {
        train_segment(job(tmp_path / str(i), noisy, plan=plan), never).weights
        for i, plan in enumerate(plans)
    }
    assert len(weights) == 1, "the optimizer's own lr is 0.01"


def test_recorded_norms_are_those_of_the_gradient_before_clipping(tmp_path, tiny_text):
    recorded = job(tmp_path / "a", tiny_text, steps=3, record_grad_norms=True)
    plain = job(tmp_path / "b", tiny_text, steps=3)
    assert train_segment(recorded, never).weights == train_segment(plain, never).weights

    task = tiny_text.load().build(3)
    task.loss(task.batch(0)).backward()
    gradient = torch.cat([p.grad.flatten() for p in task.model.parameters()]).double()
    first = next(SegmentDirectory(tmp_path / "a").rows())
    assert first["step"] == 1
    assert first["grad_l2"] == pytest.approx(gradient.norm().item(), rel=1e-5)
    assert first["grad_l1"] == pytest.approx(gradient.abs().sum().item(), rel=1e-5)


def test_the_loop_is_the_usual_one(tmp_path, tiny_text):
    """Ten hand-written lines reach the same weights to the bit."""
    outcome = train_segment(job(tmp_path, tiny_text, plan=tp.Plan(horizon=12, lr=0.01)), never)
    task = tiny_text.load().build(3)
    for step in range(12):
        for group in task.optimizer.param_groups:
            group["lr"] = 0.01
        loss = task.loss(task.batch(step))
        task.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), 1.0)
        task.optimizer.step()
    assert outcome.weights == lab.checkpoint.weights_digest(task.model)


def finals(result):
    return {run: (r.weights, r.losses.tobytes(), r.final()) for run, r in result.runs.items()}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.path)
def test_sharing_prefixes_changes_no_bit(spec, arms):
    shared = lab.compare(arms, workload=spec, seeds=2, jobs=0, eval_every=7)
    alone = lab.compare(arms, workload=spec, seeds=2, jobs=0, eval_every=7, share_prefixes=False)
    assert finals(shared) == finals(alone)
    for run in shared.runs:
        assert shared.runs[run].evaluated.tolist() == alone.runs[run].evaluated.tolist()
        for metric, values in shared.runs[run].metrics.items():
            assert values.tobytes() == alone.runs[run].metrics[metric].tobytes()
    assert (shared.planned_steps, shared.steps) == (240, 2 * (16 + 24 + 13 + 11 + 11))
    assert (alone.planned_steps, alone.steps) == (240, 240)


def test_arms_of_different_horizons_share_and_end_where_they_should(noisy):
    lr = tp.schedules.wsd(0.02, warmup=2, decay=10, shape="linear", end=0.0)
    plans = [tp.Plan(horizon=n, name=str(n), lr=lr) for n in (20, 30, 40)]
    plans.append(tp.Plan(horizon=15, name="trunk", lr=tp.schedules.constant(0.02, warmup=2)))
    shared = lab.compare(plans, workload=noisy, seeds=2, jobs=0, eval_every=7)
    alone = lab.compare(plans, workload=noisy, seeds=2, jobs=0, eval_every=7, share_prefixes=False)
    assert finals(shared) == finals(alone)
    assert shared.runs["trunk", 0].evaluated.tolist() == [7, 14, 15]
    assert shared.runs["20", 0].evaluated.tolist() == [7, 14, 20]
    assert shared.steps < 0.75 * shared.planned_steps


def test_the_number_of_jobs_changes_no_bit(noisy, arms):
    here = lab.compare(arms, workload=noisy, seeds=2, jobs=0)
    workers = lab.compare(arms, workload=noisy, seeds=2, jobs=2)
    assert finals(here) == finals(workers)


def test_every_arm_of_a_seed_begins_alike_and_seeds_differ(noisy):
    plans = [tp.Plan(horizon=6, name=str(lr), lr=lr) for lr in (0.01, 0.03)]
    result = lab.compare(plans, workload=noisy, seeds=[4, 9], jobs=0)
    first = {run: r.losses[0] for run, r in result.runs.items()}
    assert first["0.01", 4] == first["0.03", 4] != first["0.01", 9]


def test_a_run_that_diverges_stops_and_counts_as_diverged(tmp_path, arms):
    spec = WorkloadSpec("lab.lab_workloads:build", {"explode_at": 20})
    result = lab.compare(arms, workload=spec, seeds=2, jobs=0, out=tmp_path / "run")
    assert {run.diverged_at for run in result.runs.values()} == {21}
    assert all(math.isinf(loss) for summary in result.summaries for loss in summary.finals)
    assert result.summaries[1].p_value == 1.0
    assert "diverged on 2 of 2 seeds" in " ".join(lab.conclude(result))
    json.dumps(result.to_dict(), allow_nan=False)


def test_tuning_chooses_each_arms_peak_on_other_seeds():
    plans = [tp.Plan(horizon=30, name=str(lr), lr=tp.schedules.constant(lr)) for lr in (1e-4, 0.01)]
    tuning = lab.Tuning(factors=(0.1, 1.0, 100.0), seeds=2)
    result = lab.compare(plans, workload="digits", seeds=2, jobs=0, tuning=tuning)
    assert result.factors == {"0.0001": 100.0, "0.01": 1.0}
    assert set(tuning.seed_numbers()).isdisjoint(result.experiment.seeds)
    assert result.experiment.arms[0].plan["lr"](0) == pytest.approx(0.01)
    assert result.planned_steps == 2 * 30 * 2 + 2 * 3 * 30 * 2
    assert "smallest or largest that was tried" in " ".join(lab.conclude(result))


def test_a_peak_that_is_no_schedule_cannot_be_tuned():
    plan = tp.Plan(horizon=10, name="p", lr=tp.schedules.ReduceOnPlateau(0.1))
    with pytest.raises(tp.PlanError, match="no peak to tune"):
        lab.compare([plan], workload="digits", seeds=1, jobs=0, tuning=lab.Tuning())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"plans": []}, "nothing to compare"),
        ({"seeds": 0}, "at least one seed"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": [-1]}, "none negative"),
        ({"seeds": [10**6], "tuning": lab.Tuning()}, "used for tuning"),
        ({"plans": [tp.Plan(horizon=5, name="a", lr=0.1)] * 2}, "two arms have one name"),
        ({"plans": [tp.Plan(horizon=5, name="a", widht=1.0)]}, "widht"),
    ],
)
def test_an_experiment_that_cannot_be_meant_is_refused(arguments, message):
    given = {"plans": [tp.Plan(horizon=5, name="a", lr=0.1)], "seeds": 1, **arguments}
    with pytest.raises(tp.PlanError, match=message):
        lab.compare(given.pop("plans"), workload="digits", jobs=0, **given)


def test_an_experiment_survives_json(arms):
    experiment = lab.Experiment(arms, (0, 2), tuning=lab.Tuning((0.5, 1.0), 1))
    again = lab.Experiment.from_dict(json.loads(json.dumps(experiment.to_dict())))
    assert again.digest == experiment.digest
    assert again.arms == experiment.arms


def test_named_and_unnamed_plans_become_arms():
    plans = [tp.Plan(horizon=5, lr=0.1), Arm("b", tp.Plan(horizon=5, lr=0.2))]
    result = lab.compare(plans, workload="digits", seeds=1, steps=3, jobs=0)
    assert [summary.arm for summary in result.summaries] == ["plan 1", "b"]
    assert all(len(run.losses) == 3 for run in result.runs.values())
    assert np.isfinite(result.summaries[0].mean.estimate)
