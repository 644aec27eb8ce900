"""``trainplan refine`` writes the next plan and a picture, from a comparison or from a log."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import trainplan as tp
from trainplan.cli import app

pytest.importorskip("matplotlib")

runner = CliRunner()


def refine(*words) -> str:
    """Run the command; its output, or raise what it raised."""
    result = runner.invoke(app, ["refine", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from trainplan import lab

    root = tmp_path_factory.mktemp("lab") / "run"
    arms = [
        tp.Plan(horizon=60, name=name, lr=lr, weight_decay=0.01)
        for name, lr in (
            ("linear", tp.schedules.linear(0.02)),
            ("cosine", tp.schedules.cosine(0.02)),
        )
    ]
    options = {"optimizer": "sgd", "width": 8}
    result = lab.compare(
        arms,
        workload=lab.WorkloadSpec("digits", options),
        seeds=2,
        jobs=0,
        out=root,
        record_grad_norms=True,
    )
    # As the command line does at the end of a comparison.
    from trainplan.lab.store import json_text

    (root / "results.json").write_text(json_text(result.to_dict()))
    return root, result


def log(path: Path, rows) -> Path:
    path.write_text("\n".join(["step,norm", *(f"{step},{norm}" for step, norm in rows)]) + "\n")
    return path


# From a comparison


def test_a_comparison_is_refined_with_the_mean_norms_of_its_seeds(comparison, folder):
    root, result = comparison
    output = refine(root)
    plan = tp.Plan.load(folder / "refined.yaml")
    norms = np.mean([result.runs["linear", seed].grad_norms["grad_l2"] for seed in (0, 1)], axis=0)
    assert plan.knobs["lr"] == tp.schedules.refine(norms, 0.02, optimizer="sgd")
    assert (plan.name, plan.horizon, plan.at(0)["weight_decay"]) == ("linear-refined", 60, 0.01)
    assert (folder / "refined.png").read_bytes().startswith(b"\x89PNG")
    assert "arm 'linear', 2 seeds (L2 norms, for SGD)" in output
    assert f"trainplan compare {root}/plans/linear.yaml refined.yaml --workload digits" in output
    assert "--with=optimizer=sgd --with=width=8 --tune-peak" in output


def test_arm_seed_and_kind_of_norm_can_be_chosen(comparison, folder):
    root, result = comparison
    refine(root, "--arm", "cosine", "--seed", 1, "--optimizer", "adam", "--peak", 0.5)
    norms = result.runs["cosine", 1].grad_norms["grad_l1"]
    assert tp.Plan.load("refined.yaml").knobs["lr"] == tp.schedules.refine(norms, 0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arm", "cosin"], "Did you mean 'cosine'"),
        (["--seed", "7"], "Seeds there are: 0, 1"),
        (["--optimizer", "lion"], "adam .* or sgd"),
        (["--plan", "old.yaml"], "--plan: belongs to a logged file"),
        (["--column", "norm"], "--column: belongs to a logged file"),
    ],
)
def test_what_a_comparison_does_not_have_is_named(comparison, folder, words, message):
    with pytest.raises(tp.PlanError, match=message):
        refine(comparison[0], *words)
    assert list(folder.iterdir()) == []


def test_a_comparison_that_is_not_finished_says_how_to_finish_it(comparison, folder):
    root, _ = comparison
    results = root / "results.json"
    content = results.read_text()
    results.unlink()
    try:
        with pytest.raises(tp.PlanError, match=r"not finished.*compare --resume"):
            refine(root)
    finally:
        results.write_text(content)


def test_a_comparison_without_norms_says_how_to_record_them(comparison, folder):
    root, _ = comparison
    results = root / "results.json"
    content = results.read_text()
    changed = json.loads(content)
    changed["experiment"]["record_grad_norms"] = False
    results.write_text(json.dumps(changed))
    try:
        with pytest.raises(tp.PlanError, match="--record-grad-norms"):
            refine(root)
    finally:
        results.write_text(content)


# From a log


def test_constant_norms_give_a_linear_decay(folder):
    rows = [(step, 2.0) for step in range(1, 401)]
    output = refine(log(folder / "norms.csv", rows), "--peak", 0.1)
    plan = tp.Plan.load("refined.yaml")
    assert plan.horizon == 400
    np.testing.assert_allclose(plan["lr"]([0, 200, 300]), [0.1, 0.05, 0.025], atol=1e-3)
    assert "after 0 % of the run, and at half-way 50 %" in output


def test_the_old_plan_gives_peak_horizon_and_everything_else(folder):
    old = tp.Plan(
        horizon=300, name="old", lr=tp.schedules.cosine(0.3, warmup=10), betas=(0.9, 0.99)
    )
    old.save("old.yaml")
    rows = [(step, 1 + step / 300) for step in range(0, 300, 5)]
    output = refine(log(folder / "norms.csv", rows), "--plan", "old.yaml", "--out", "new.yaml")
    new = tp.Plan.load("new.yaml")
    assert new.knobs["betas"] == old.knobs["betas"]
    assert (new.horizon, new.name) == (300, "old-refined")
    assert new["lr"](np.arange(300)).max() == pytest.approx(0.3, rel=1e-3)
    assert "before" in output
    assert "Plan: new.yaml Picture: new.png" in output


def test_rows_that_are_uneven_repeated_or_infinite_are_put_in_order(folder):
    steps = np.concatenate([np.arange(1, 100), np.arange(100, 400, 3)])
    rows = [(step, 1 + step) for step in steps] + [(50, 51), (401, "inf")]
    refine(log(folder / "norms.csv", rows), "--peak", 1, "--tau", 0)
    grid = np.linspace(1, 397, steps.size)
    assert tp.Plan.load("refined.yaml").knobs["lr"] == tp.schedules.refine(1 + grid, 1.0, tau=0)


def test_json_lines_with_logged_rates_need_no_peak(folder):
    rows = [{"step": s, "grad_l2": 1.0, "lr": 0.2 * (1 - s / 100)} for s in range(1, 101)]
    Path("log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = refine("log.jsonl", "--optimizer", "sgd")
    assert "before" in output
    assert tp.Plan.load("refined.yaml")["lr"](0) == pytest.approx(0.198)


def test_the_l2_norm_of_a_trainer_is_used_for_adam_with_a_note(folder):
    rows = [{"step": s, "loss": 1.0, "grad_norm": 1.0} for s in range(1, 51)]
    Path("trainer_state.json").write_text(json.dumps({"log_history": rows}))
    assert "Note: grad_norm is an L2 norm" in refine("trainer_state.json", "--peak", 0.1)


def test_norms_that_collapse_are_reported(folder):
    rows = [(step, 1.0 if step < 300 else 1e-9) for step in range(1, 401)]
    assert "Note: some gradient norms" in refine(log(folder / "norms.csv", rows), "--peak", 1)


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("step,norm\n" + "1,1\n" * 3, ["--peak", "1"], "ten gradient norms"),
        ("step,loss\n1,1\n2,1\n", ["--peak", "1"], "Name one with --column"),
        ("step,norm\n1,1\n2,1\n", ["--column", "length"], "no column 'length'"),
        ("a,b\n1,1\n2,2\n", [], "no column that counts steps"),
        ("step,norm\n1,-1\n" + "".join(f"{i},1\n" for i in range(2, 40)), [], "peak"),
        ("", [], "empty"),
    ],
)
def test_logs_that_cannot_be_meant_are_named(folder, content, words, message):
    Path("norms.csv").write_text(content)
    with pytest.raises(tp.PlanError, match=message):
        refine("norms.csv", *words)
    assert [path.name for path in folder.iterdir()] == ["norms.csv"]


def test_a_run_that_stopped_early_is_refused_unless_its_length_is_given(folder):
    tp.Plan(horizon=1000, lr=tp.schedules.linear(0.1)).save("old.yaml")
    file = log(folder / "norms.csv", [(step, 1.0) for step in range(1, 101)])
    with pytest.raises(tp.PlanError, match="recorded 100 of 1000 steps"):
        refine(file, "--plan", "old.yaml")
    refine(file, "--plan", "old.yaml", "--horizon", 100)
    assert tp.Plan.load("refined.yaml").horizon == 100


def test_arm_and_seed_belong_to_a_comparison(folder):
    file = log(folder / "norms.csv", [(step, 1.0) for step in range(1, 101)])
    with pytest.raises(tp.PlanError, match="--arm: belongs to the directory of a comparison"):
        refine(file, "--arm", "linear")


def test_files_are_not_replaced_without_being_asked(folder):
    file = log(folder / "norms.csv", [(step, 1.0) for step in range(1, 101)])
    refine(file, "--peak", 0.1)
    before = Path("refined.yaml").read_text()
    with pytest.raises(tp.PlanError, match="--overwrite"):
        refine(file, "--peak", 0.2)
    assert Path("refined.yaml").read_text() == before
    refine(file, "--peak", 0.2, "--overwrite")
    assert Path("refined.yaml").read_text() != before


def test_a_picture_that_cannot_be_drawn_leaves_no_plan(folder):
    file = log(folder / "norms.csv", [(step, 1.0) for step in range(1, 101)])
    with pytest.raises(tp.PlanError, match="cannot draw"):
        refine(file, "--peak", 0.1, "--plot", "lr.txt")
    assert not Path("refined.yaml").exists()


# The pages' examples


def example(name: str):
    path = Path(__file__).parents[1] / "docs" / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_with_recorded_norms_refines_its_plan(folder):
    pytest.importorskip("torch")
    module = example("with_gradnorms")
    plan = tp.Plan(horizon=200, name="first", lr=tp.schedules.linear(0.01, warmup="5%"))
    plan.save("first.yaml")
    module.train(plan, Path("grad_norms.csv"))
    refine("grad_norms.csv", "--plan", "first.yaml")
    refined = tp.Plan.load("refined.yaml")
    # Its noise grows, so the refined rate is the lower one near the end.
    assert refined["lr"](150) < plan["lr"](150)
    assert np.isfinite(module.train(refined))


def test_the_example_with_a_search_is_resumed_after_any_kill_to_the_same_bits(folder):
    torch = pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    module = example("with_autolrs")
    lr, whole = module.search(folder / "whole.pt")
    assert whole.validate() < module.Training().validate()
    assert lr.cost.exploited == 300
    for stop in (4, 20):
        file = folder / f"{stop}.pt"
        with pytest.raises(KeyboardInterrupt):
            module.search(file, stop_after=stop)
        again, resumed = module.search(file)
        assert again.state_dict() == lr.state_dict()
        for mine, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(mine, theirs)
