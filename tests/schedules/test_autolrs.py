"""AutoLRS finds a rate per stage, leaves no trace of its trials, and survives being killed."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trainplan as tp
from trainplan.schedules import AutoLRS, train_with_search
from trainplan.schedules.forecast import (
    ForecastError,
    exponential_forecast,
    foresee,
    released_forecast,
)
from trainplan.schedules.rate_search import next_rate, penalized
from trainplan.schedules.stages import Cost, cost_of_stages, stages_within

pytest.importorskip("sklearn")

SMALL = {"trials": 3, "trial_steps": 4, "stage_steps": 12, "longest_stage": 80}


class Quadratic:
    """Gradient descent on x^2 / 2 in pure Python, with a position in noisy data."""

    def __init__(self) -> None:
        self.state = {"x": 5.0, "position": 0}
        self.kept: dict[str, float] = {}
        self.calls: list[str] = []

    def save(self) -> None:
        self.kept = copy.deepcopy(self.state)
        self.calls.append("save")

    def restore(self) -> None:
        self.state = copy.deepcopy(self.kept)
        self.calls.append("restore")

    def train(self, rate: float, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            x, position = self.state["x"], int(self.state["position"])
            losses.append(x * x / 2)
            noise = math.sin(12.9898 * position)
            self.state = {"x": x - rate * (x + noise), "position": position + 1}
        return losses

    def validate(self) -> float:
        self.calls.append("validate")
        return self.state["x"] ** 2 / 2

    def run(self, lr: AutoLRS, **more) -> AutoLRS:
        functions = {"train": self.train, "save": self.save, "restore": self.restore}
        return train_with_search(lr, **functions, **more)


# Forecasts


@given(a=st.floats(0.1, 5), rate=st.floats(0.003, 0.4), c=st.floats(0, 3), n=st.integers(40, 200))
def test_an_exponential_is_forecast_exactly(a, rate, c, n):
    losses = a * np.exp(-rate * np.arange(n)) + c
    forecast = exponential_forecast(losses)(10 * n)
    # From the first points of a slow curve, the rest is known less well.
    assert forecast == pytest.approx(a * math.exp(-rate * 10 * n) + c, abs=2e-3 * a)


def test_spikes_do_not_move_the_default_forecast():
    losses = 1.5 * np.exp(-0.03 * np.arange(100)) + 0.7
    clean = exponential_forecast(losses)(1000)
    losses[[5, 20, 60]] += 3.0
    assert exponential_forecast(losses)(1000) == pytest.approx(clean, abs=0.02)


def test_the_released_forecast_is_too_low_on_a_perfect_exponential():
    losses = 1.5 * np.exp(-0.03 * np.arange(100)) + 0.7
    assert released_forecast(losses)(1000) < 0.6 < exponential_forecast(losses)(1000)


def test_a_falling_line_is_not_forecast_below_zero():
    assert 0 <= exponential_forecast(np.linspace(2, 1, 100))(1000) < 1


@pytest.mark.parametrize("losses", [[1.0, 2.0], [1.0, math.nan, 2.0], [math.inf] * 5])
def test_a_forecast_refuses_losses_that_are_few_or_not_finite(losses):
    with pytest.raises(tp.PlanError, match="losses"):
        exponential_forecast(losses)


def test_where_the_released_fit_fails_the_last_losses_are_the_forecast():
    losses = [3.0, 2.5, 2.0, 1.5, 1.0, 1.5]
    with pytest.raises(ForecastError):
        released_forecast(losses)
    assert foresee(losses, 100, "released") == foresee(losses, 100, "last") == np.mean(losses)


# Search


@given(data=st.data(), seed=st.integers(0, 1000), kappa=st.sampled_from([0.0, 2.0, 1000.0]))
def test_every_proposal_is_new_and_inside_the_range(data, seed, kappa):
    tried: list[float] = []
    losses: list[float | None] = []
    for _ in range(5):
        rate = next_rate(1e-4, 1e-1, tried, losses, kappa=kappa, seed=seed)
        assert 1e-4 <= rate <= 1e-1
        assert rate not in tried
        tried.append(rate)
        losses.append(data.draw(st.one_of(st.none(), st.floats(-10, 1e6))))


def test_a_small_kappa_goes_to_the_valley_and_a_large_one_everywhere():
    def tried(kappa: float) -> list[float]:
        rates: list[float] = []
        for _ in range(10):
            valley = [(math.log10(rate) + 1.2) ** 2 for rate in rates]
            rates.append(next_rate(1e-3, 1.0, rates, valley, kappa=kappa))
        return rates

    near = [sum(0.03 < rate < 0.13 for rate in tried(kappa)) for kappa in (1.0, 1000.0)]
    assert near[0] >= 5 > near[1]
    gaps = np.diff(np.sort(np.log10(tried(1000.0))))
    assert gaps.max() < 0.6


def test_a_diverged_trial_counts_as_slightly_worse_than_the_worst():
    assert penalized([1.0, None, 3.0]).tolist() == [1.0, 4.0, 3.0]
    assert penalized([None, None]).tolist() == [0.0, 0.0]
    assert penalized([2.0, None])[1] > 2.0


# Stages and cost


@given(
    steps=st.integers(1, 50_000),
    trial=st.integers(3, 200),
    ratio=st.integers(1, 12),
    longest=st.integers(1, 8000),
)
def test_stages_fill_the_training_exactly(steps, trial, ratio, longest):
    sizes = {"trial_steps": trial, "stage_steps": trial * ratio, "longest_stage": longest}
    stages = stages_within(steps, **sizes)
    assert cost_of_stages(stages).exploited == steps
    assert [stage.index for stage in stages] == list(range(len(stages)))
    assert all(stage.trial_steps >= 3 and stage.steps > 0 for stage in stages)


@given(total=st.integers(1, 30_000))
def test_equal_total_steps_is_the_longest_training_that_fits(total):
    lr = AutoLRS(0.01, 1.0, warmup=50, warmup_peak=0.1)
    steps = lr.steps_within(total)
    assert lr.planned_cost(steps + 1).total > total
    assert steps == 0 or lr.planned_cost(steps).total <= total


def test_the_search_costs_what_was_planned():
    lr = AutoLRS(0.01, 1.0, steps=100, warmup=5, warmup_peak=0.1, **SMALL)
    Quadratic().run(lr)
    assert lr.cost == lr.planned_cost() == Cost(100, lr.cost.searched)
    assert lr.cost.searched == 3 * sum(
        stage.trial_steps
        for stage in stages_within(95, trial_steps=4, stage_steps=12, longest_stage=80)
    )
    assert sum(steps for _, steps in lr.chosen) == 95


def test_the_published_sizes_cost_as_much_again():
    assert AutoLRS(1e-3, 0.1).planned_cost(15_000) == Cost(15_000, 15_000)


# The method in a loop


def test_trials_leave_no_trace():
    """The same training results as with the found schedule and no search at all."""
    searched, plain = Quadratic(), Quadratic()
    lr = searched.run(AutoLRS(0.01, 1.0, steps=90, warmup=6, warmup_peak=0.3, **SMALL))
    schedule = lr.found()
    for step in range(90):
        plain.train(schedule(step), 1)
    assert plain.state == searched.state


def test_a_stage_saves_once_and_goes_back_after_every_trial():
    loop = Quadratic()
    loop.run(AutoLRS(0.01, 1.0, steps=12, **SMALL))
    assert loop.calls == ["save", "restore", "restore", "restore"]


def test_the_rate_with_the_best_forecast_is_trained():
    lr = AutoLRS(1e-4, 1.0, steps=12, search="grid", **SMALL)
    Quadratic().run(lr)
    state = lr.state_dict()
    assert lr.chosen == [(state["tried"][int(np.argmin(state["forecasts"]))], 12)]


def test_the_warm_up_rises_linearly_and_precedes_the_first_save():
    lr, loop, rates = (
        AutoLRS(0.01, 1.0, steps=20, warmup=4, warmup_peak=0.2, **SMALL),
        Quadratic(),
        [],
    )

    def train(rate: float, steps: int) -> list[float]:
        if not loop.calls:
            rates.append((rate, steps))
        return loop.train(rate, steps)

    train_with_search(lr, train=train, save=loop.save, restore=loop.restore)
    assert [steps for _, steps in rates] == [1] * 4
    assert [rate for rate, _ in rates] == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert loop.calls[0] == "save"
    assert lr.found()([0, 3]).tolist() == pytest.approx([0.05, 0.2])


def test_late_stages_forecast_validation_losses():
    sizes = {"trials": 2, "trial_steps": 32, "stage_steps": 64, "longest_stage": 320}
    lr, loop = AutoLRS(0.01, 1.0, steps=128, **sizes), Quadratic()
    loop.run(lr, validate=loop.validate)
    first, late = loop.calls[:3], loop.calls[3:]
    assert first == ["save", "restore", "restore"]
    assert late == ["save", *(["validate"] * 16 + ["restore"]) * 2]


def test_without_a_validation_loss_training_losses_are_forecast_to_the_end():
    sizes = {"trials": 2, "trial_steps": 32, "stage_steps": 64, "longest_stage": 320}
    lr, loop = AutoLRS(0.01, 1.0, steps=128, **sizes), Quadratic()
    loop.run(lr)
    assert "validate" not in loop.calls
    assert len(lr.chosen) == 2


def test_validation_losses_above_the_first_loss_are_not_extrapolated():
    lr = AutoLRS(0.01, 1.0, steps=20, trials=1, trial_steps=10, stage_steps=10, longest_stage=10)
    losses = iter([1.0] * 20 + [0.5] * 50)
    validations = iter([2.0, 1.5, 1.4] + [0.9] * 7)
    train_with_search(
        lr,
        train=lambda rate, steps: [next(losses) for _ in range(steps)],
        save=lambda: None,
        restore=lambda: None,
        validate=lambda: next(validations),
    )
    assert lr.state_dict()["forecasts"] == [0.9]


@pytest.mark.parametrize("forecast", ["exponential", "released", "last"])
@pytest.mark.parametrize("search", ["gp", "grid"])
def test_every_forecast_and_search_trains_to_a_small_loss(forecast, search):
    lr = AutoLRS(
        0.003, 1.0, steps=150, trial_steps=20, stage_steps=50, forecast=forecast, search=search
    )
    loop = Quadratic()
    loop.run(lr)
    assert loop.validate() < 0.5 < 12.5


# Divergence


def test_a_trial_that_diverges_ends_at_once_and_is_not_chosen():
    lr, loop = AutoLRS(1e-2, 1e3, steps=12, search="grid", **SMALL), Quadratic()

    def train(rate: float, steps: int) -> list[float]:
        losses = loop.train(rate, steps)
        return [math.nan if rate > 100 else loss for loss in losses]

    train_with_search(lr, train=train, save=loop.save, restore=loop.restore)
    assert lr.state_dict()["forecasts"][2] is None
    assert lr.cost.searched == 4 + 4 + 1
    assert lr.chosen[0][0] < 100


def test_a_stage_that_diverges_is_undone_and_trained_with_the_next_best():
    lr, loop = AutoLRS(1e-2, 1.0, steps=12, search="grid", **SMALL), Quadratic()
    refused: list[float] = []

    def train(rate: float, steps: int) -> list[float]:
        losses = loop.train(rate, steps)
        if not lr.searching and not refused:
            refused.append(rate)
            losses[5] = math.inf
        return losses

    train_with_search(lr, train=train, save=loop.save, restore=loop.restore)
    assert lr.chosen[0][0] not in refused
    assert lr.cost == Cost(12, 12 + 6)


def test_a_stage_in_which_everything_diverges_says_what_to_do():
    lr = AutoLRS(1.0, 10.0, steps=12, **SMALL)
    with pytest.raises(tp.PlanError, match=r"every rate of stage 0 diverged.*Lower it"):
        train_with_search(
            lr, train=lambda rate, steps: [math.nan], save=lambda: None, restore=lambda: None
        )


# Kill and resume


def test_a_search_killed_after_any_call_and_resumed_equals_the_uninterrupted_one():
    settings = {"steps": 60, "warmup": 3, "warmup_peak": 0.2, **SMALL}
    whole, checkpoints = Quadratic(), []

    def after(lr: AutoLRS) -> None:
        content = {"lr": lr.state_dict(), "now": whole.state, "kept": whole.kept}
        checkpoints.append(json.dumps(content, allow_nan=False))

    finished = whole.run(AutoLRS(0.01, 1.0, **settings), after=after, longest=3)
    phases = {json.loads(text)["lr"]["phase"] for text in checkpoints}
    assert phases == {"warmup", "trial", "stage", "finished"}
    for text in checkpoints:
        content, again = json.loads(text), Quadratic()
        again.state, again.kept = content["now"], content["kept"]
        lr = AutoLRS(0.01, 1.0, **settings)
        lr.load_state_dict(content["lr"])
        again.run(lr, longest=3)
        assert again.state == whole.state
        assert lr.state_dict() == finished.state_dict()


def test_a_state_is_a_copy_and_a_foreign_one_is_refused():
    lr = AutoLRS(0.01, 1.0, steps=60, **SMALL)
    before = json.dumps(lr.state_dict())
    lr.state_dict()["tried"].append(1.0)
    assert json.dumps(lr.state_dict()) == before
    with pytest.raises(tp.PlanError, match="not a state of AutoLRS"):
        lr.load_state_dict({"value": 0.1})


# Attached, and in the lab


def lab_job(directory: Path, lr: AutoLRS, steps: int):
    from trainplan.lab.train import SegmentJob

    options = {"optimizer": "sgd", "width": 8, "batch_size": 8}
    return SegmentJob(
        key="a",
        seed=3,
        start=0,
        stop=steps,
        directory=str(directory),
        parent=None,
        plan=tp.Plan(horizon=steps, lr=lr, weight_decay=tp.schedules.linear(0.1)).to_dict(),
        workload={"path": "digits", "options": options},
        eval_every=10,
        eval_at_stop=True,
        record_grad_norms=False,
        keep_end=False,
        checkpoint_seconds=1e9,
    )


def test_an_arm_of_the_lab_that_is_stopped_at_any_step_resumes_to_the_same_bits(tmp_path):
    pytest.importorskip("torch")
    from trainplan.lab.train import train_segment

    # Rates up to 1e30 diverge, and the run must survive that in every stage.
    lr = AutoLRS(0.01, 1e30, steps=40, **SMALL)
    whole = train_segment(lab_job(tmp_path / "whole", lr, 70), lambda step, loss: False)
    assert whole is not None
    assert whole.diverged_at is None
    for stop in (1, 6, 11, 14, 20, 30, 47, 69):
        job = lab_job(tmp_path / str(stop), lr, 70)
        assert train_segment(job, lambda step, loss, stop=stop: step == stop) is None
        resumed = train_segment(job, lambda step, loss: False)
        assert resumed is not None
        assert (resumed.weights, resumed.rows_digest) == (whole.weights, whole.rows_digest)


def test_an_attached_search_trains_the_bits_of_the_found_schedule():
    torch = pytest.importorskip("torch")
    from trainplan.lab.rewind import Rewind
    from trainplan.lab.workload import WorkloadSpec

    def train(plan: tp.Plan, steps: int | None):
        task = WorkloadSpec("digits", {"width": 8, "batch_size": 8}).load().build(0)
        run = tp.torch.attach(plan, task.optimizer)
        Rewind(task, run).connect()
        lr = plan.knobs["lr"]
        while run.t < steps if steps else not lr.finished:
            loss = task.loss(task.batch(run.clock.steps))
            task.optimizer.zero_grad()
            loss.backward()
            task.optimizer.step()
            run.observe(loss=loss.item())
        return run, torch.cat([p.detach().ravel() for p in task.model.parameters()])

    decay = tp.schedules.linear(0.1)
    lr = AutoLRS(1e-4, 0.1, steps=40, **SMALL)
    run, searched = train(tp.Plan(horizon=40, lr=lr, weight_decay=decay), None)
    assert run.t == 40
    _, plain = train(tp.Plan(horizon=40, lr=lr.found(), weight_decay=decay), 40)
    assert torch.equal(searched, plain)


def test_a_plan_file_names_the_search():
    text = "horizon: 200\nlr: {autolrs: {lowest: 1e-3, highest: 1, steps: 100, search: grid}}\n"
    plan = tp.Plan.from_yaml(text)
    assert plan.knobs["lr"] == AutoLRS(1e-3, 1.0, steps=100, search="grid")
    assert tp.Plan.from_yaml(plan.to_yaml()) == plan


# What cannot be meant


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"lowest": 0.0}, "lowest"),
        ({"lowest": "small"}, "lowest"),
        ({"highest": 0.01}, "highest"),
        ({"highest": math.inf}, "highest"),
        ({"trials": 0}, "trials"),
        ({"trial_steps": 2}, "trial_steps"),
        ({"stage_steps": 50}, "stage_steps"),
        ({"steps": 0}, "steps"),
        ({"steps": 1.5}, "steps"),
        ({"warmup": 10}, "warmup_peak"),
        ({"warmup": 10, "warmup_peak": -1.0}, "warmup_peak"),
        ({"warmup": 10, "warmup_peak": 0.1, "steps": 10}, "steps"),
        ({"forecast": "linear"}, "forecast"),
        ({"search": "random"}, "search"),
        ({"kappa": math.nan}, "kappa"),
    ],
)
def test_bad_settings_are_named(given, place):
    with pytest.raises(tp.PlanError) as error:
        AutoLRS(**{"lowest": 0.01, "highest": 1.0, **given})
    assert error.value.place == place


def test_a_search_that_is_not_connected_says_so():
    lr = AutoLRS(0.01, 1.0)
    lr.observe(0, reward=1.0)  # not its signal
    with pytest.raises(tp.PlanError, match="Call connect"):
        lr.observe(0, loss=1.0)


def test_a_loop_that_returns_too_few_losses_is_told():
    with pytest.raises(tp.PlanError, match="asked for 4 steps"):
        train_with_search(
            AutoLRS(0.01, 1.0, steps=12, **SMALL),
            train=lambda rate, steps: [1.0],
            save=lambda: None,
            restore=lambda: None,
        )


@pytest.mark.parametrize("ask", [AutoLRS.found, AutoLRS.planned_cost])
def test_what_is_not_known_yet_is_an_error(ask):
    with pytest.raises(tp.PlanError):
        ask(AutoLRS(0.01, 1.0))
