"""A comparison that predicts its later arms: before they end, once, and honestly."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import trainplan as tp
from trainplan import lab, laws
from trainplan.cli import app
from trainplan.errors import PlanError
from trainplan.lab import comparison, forecast, forecast_view, report, table
from trainplan.lab.comparison import Quiet
from trainplan.lab.curves import plan_rates
from trainplan.lab.experiment import Arm, Experiment
from trainplan.lab.store import RunDirectory, RunDirectoryError
from trainplan.lab.workload import WorkloadSpec

STEPS = 80
s = tp.schedules


def plan(name, lr, **knobs):
    return tp.Plan(horizon=STEPS, name=name, lr=lr, **knobs)


PLANS = [
    plan("constant", s.constant(0.01, warmup=4)),
    plan("linear", s.linear(0.01, warmup=4)),
    plan("<wsd>", s.wsd(0.01, warmup=4, decay="30%", shape="linear", end=0.0)),
    plan("high", s.cosine(0.02, warmup=4)),
    plan("batch", s.cosine(0.01, warmup=4), batch_size=8),
]


def experiment(plans=PLANS, seeds=(0, 1)):
    arms = tuple(Arm(p.name, p) for p in plans)
    return Experiment(arms, seeds, WorkloadSpec("digits"), eval_every=4)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    root = tmp_path_factory.mktemp("forecast") / "run"
    session = comparison.begin(root, experiment(), 0, predict_from=2)
    return root, comparison.execute(session, jobs=0)


class StopAfter(Quiet):
    """Interrupts when so many segments are done, or when something was predicted."""

    def __init__(self, segments=10**9, predictions=10**9):
        self.segments, self.predictions = segments, predictions
        self.said = []

    def done(self, key):
        self.segments -= 1
        if self.segments <= 0:
            raise KeyboardInterrupt

    def warn(self, message):
        self.said.append(message)
        self.predictions -= 1
        if self.predictions <= 0:
            raise KeyboardInterrupt


def test_the_curves_of_a_comparison_are_read_with_every_rate(done):
    root, result = done
    curves = {curve.name: curve for curve in laws.load(root)}
    assert set(curves) == {f"{p.name}/{seed}" for p in PLANS for seed in (0, 1)}
    curve, run = curves["linear/1"], result.runs["linear", 1]
    assert curve.steps.tolist() == run.evaluated.tolist()
    assert curve.loss.tolist() == run.metrics["loss"].tolist()
    assert curve.rates[1:].tolist() == plan_rates(PLANS[1]).tolist()
    (train, _) = laws.load(root, loss="loss", runs=["linear"], spikes="keep")
    assert train.loss.tolist() == result.runs["linear", 0].losses.tolist()


def test_a_rate_that_a_controller_set_is_in_the_curves():
    lr = s.ReduceOnPlateau(0.01, factor=0.1, patience=0)
    result = lab.compare([tp.Plan(horizon=40, name="p", lr=lr)], workload="digits", seeds=1, jobs=0)
    rates = result.runs["p", 0].rates
    assert rates.shape == (40,)
    assert rates[0] == 0.01


def test_the_other_arms_are_predicted_before_they_are_trained(done):
    root, result = done
    stored = json.loads((root / "prediction.json").read_text())
    assert stored["fitted"] == ["constant", "linear"]
    by_name = {arm["arm"]: arm for arm in stored["arms"]}
    assert set(by_name) == {"<wsd>", "high", "batch"}
    assert all(arm["trained"] == 0 < arm["planned"] for arm in stored["arms"])
    # WSD shares its trunk with the constant rate, and only its decay is its own.
    assert by_name["<wsd>"]["planned"] < by_name["high"]["planned"] == 2 * STEPS
    (check,) = forecast.checks(result)
    assert check.arm == "<wsd>"
    finals = [result.runs["<wsd>", seed].final() for seed in (0, 1)]
    assert check.measured == pytest.approx(np.mean(finals))
    assert check.error == pytest.approx(check.measured - by_name["<wsd>"]["loss"][-1], abs=1e-6)
    assert check.low < check.predicted < check.high


def test_what_the_law_cannot_know_is_not_predicted_and_said(done):
    _, result = done
    reasons = {arm.arm: " ".join(arm.cannot_tell) for arm in result.forecast.arms}
    assert "another peak" in reasons["high"]
    assert "differs from constant in batch_size" in reasons["batch"]
    text = " ".join(forecast_view.sentences(result))
    assert "high could not be predicted" in text
    assert "1 of 3 other arms" in text


def test_one_constant_arm_says_nothing_of_a_decay():
    result = lab.compare(PLANS[:2], workload="digits", seeds=1, jobs=0, predict_from=1)
    (entry,) = result.forecast.arms
    assert "no curve was measured under a falling rate" in entry.cannot_tell[0]
    assert forecast.checks(result) == []
    assert "Predicted and measured" in report.render(result)


def test_the_prediction_does_not_depend_on_the_outcome(done):
    _, result = done
    known = {key: run for key, run in result.runs.items() if key[0] in ("constant", "linear")}
    again = forecast.predict_arms(result.experiment, ["constant", "linear"], known)
    assert [a.loss for a in again.arms] == [a.loss for a in result.forecast.arms]


@pytest.mark.parametrize("stop", [{"segments": 1}, {"predictions": 1}, {"predictions": 3}])
def test_a_stopped_comparison_predicts_the_same_when_resumed(done, tmp_path, stop):
    root, whole = done
    session = comparison.begin(tmp_path / "run", experiment(), 0, predict_from=2)
    with pytest.raises(KeyboardInterrupt):
        comparison.execute(session, jobs=0, watcher=StopAfter(**stop))
    before = (tmp_path / "run" / "prediction.json").read_bytes()
    result = comparison.execute(comparison.resume(tmp_path / "run"), jobs=0)
    after = (tmp_path / "run" / "prediction.json").read_bytes()
    if "predictions" in stop:
        assert after == before, "a prediction is made once"
    assert after == (root / "prediction.json").read_bytes()
    assert (tmp_path / "run" / "curves.jsonl").read_bytes() == (root / "curves.jsonl").read_bytes()
    assert forecast.checks(result) == forecast.checks(whole)


def test_a_comparison_can_be_asked_later_and_says_how_late_it_was(tmp_path):
    three = experiment(PLANS[:3], seeds=(0,))
    comparison.execute(comparison.begin(tmp_path / "run", three, 0), jobs=0)
    session = comparison.resume(tmp_path / "run")
    assert forecast.ask(session.directory, three).fitted == ("constant", "linear")
    result = comparison.execute(session, jobs=0)
    (entry,) = result.forecast.arms
    assert entry.trained == entry.planned > 0
    assert "<wsd> 100%" in " ".join(forecast_view.sentences(result))
    session = comparison.resume(tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="predicts from constant, linear already"):
        forecast.ask(session.directory, three, 1)
    session.directory.close()


def test_an_arm_that_diverges_is_no_ground_for_a_law_and_no_outcome(done):
    _, result = done
    lost = replace(result.runs["<wsd>", 0], diverged_at=50)
    without = replace(result, runs={**result.runs, ("<wsd>", 0): lost})
    assert forecast.checks(without) == []
    assert "<wsd> was predicted and diverged" in " ".join(forecast_view.sentences(without))
    fitted = {**result.runs, ("linear", 0): replace(result.runs["linear", 0], diverged_at=3)}
    made = forecast.predict_arms(result.experiment, ["constant", "linear"], fitted)
    assert all("no law: linear: it diverged" in arm.cannot_tell[0] for arm in made.arms)


def test_report_and_table_show_prediction_and_outcome(done, capsys):
    _, result = done
    page = report.render(result)
    assert '<div class="plot" id="prediction-2">' in page
    assert "&lt;wsd&gt;" in page
    assert "<wsd>" not in page
    table.show(result, Console(width=100))
    out = capsys.readouterr().out
    assert "predicted" in out
    assert "in band" in out
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["prediction"]["outcomes"][0]["arm"] == "<wsd>"


def test_the_command_predicts_and_does_so_no_second_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for p in PLANS[:3]:
        p.save(f"{p.name.strip('<>')}.yaml")
    base = ["compare", "--seeds", "1", "--jobs", "1", "--out", "run"]
    new = ["constant.yaml", "linear.yaml", "wsd.yaml", "--workload", "digits", "--predict"]
    first = CliRunner().invoke(app, [*base, *new])
    assert first.exit_code == 0, first.output
    assert "A law fitted to constant and linear predicted 1 of 1 other arms" in first.stdout
    assert "predicted final loss of <wsd>" in first.stderr
    made = (tmp_path / "run" / "prediction.json").read_bytes()
    again = CliRunner().invoke(app, ["compare", "--resume", "--predict", "--out", "run"])
    assert again.exit_code == 0, again.output
    assert "predicted 1 of 1 other arms" in again.stdout
    assert "predicted final loss" not in again.stderr
    assert (tmp_path / "run" / "prediction.json").read_bytes() == made
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["experiment"]["eval_every"] == STEPS // forecast.EVALUATIONS
    for wrong in (["--resume", "--out", "run"], ["--out", "new", *new[:3]]):
        said = CliRunner().invoke(app, ["compare", *wrong, "--predict-from", "3"])
        assert said.exit_code != 0
        assert "There are 3 arms: give 1 to 2" in str(said.exception)


@pytest.mark.parametrize("count", [0, 5, -1])
def test_a_count_that_leaves_nothing_to_predict_is_refused(count):
    with pytest.raises(PlanError, match="give 1 to 4"):
        forecast.check_count(experiment(), count)


@pytest.mark.parametrize("text", ["{}", "[1]", '{"format": "trainplan-prediction/1"}', "nonsense"])
def test_a_damaged_prediction_is_refused(tmp_path, text):
    (tmp_path / "prediction.json").write_text(text)
    with pytest.raises(RunDirectoryError, match=r"prediction\.json"):
        forecast.load(RunDirectory(tmp_path))
