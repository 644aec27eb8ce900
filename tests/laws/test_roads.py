"""From the files that real libraries write, through the command line, to a plan."""

from __future__ import annotations

import csv
import json
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import trainplan as tp
from trainplan import laws
from trainplan.cli import app

PEAK, WARMUP, LONG, EVERY = 1e-3, 40, 1000, 10
TRUTH = laws.Concave(2.6, 1.0, 0.45, 0.25, 1.5, 35.0, 0.5, 0.75, 0.1, peak=PEAK)
SCHEDULES = {
    "constant": tp.schedules.constant(PEAK, warmup=WARMUP),
    "cosine": tp.schedules.cosine(PEAK, warmup=WARMUP),
}


def rates_of(name):
    return SCHEDULES[name].resolve(LONG)(np.arange(LONG))


def scripted(name):
    """Rates and losses of every step, as a trainer would see them."""
    rates = rates_of(name)
    losses = np.full(LONG, 8.0)
    losses[WARMUP:] = TRUTH.predict(rates, at=np.arange(WARMUP, LONG))
    wobble = np.random.default_rng(len(name)).normal(0, 5e-4, LONG)
    return rates, losses * np.exp(wobble)


def points(name):
    """(step, rate, loss) where a trainer logs."""
    rates, losses = scripted(name)
    for step in range(EVERY, LONG, EVERY):
        yield step, float(rates[step]), float(losses[step])


def transformers_state(folder, name):
    """What Transformers' Trainer writes while it trains a model whose losses are scripted."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    _, losses = scripted(name)

    class Scripted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.step = 0

        def forward(self, x):
            loss = 0 * self.weight.sum() + float(losses[self.step])
            self.step += 1
            return {"loss": loss}

    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=LONG,
        per_device_train_batch_size=1,
        learning_rate=PEAK,
        lr_scheduler_type="constant_with_warmup" if name == "constant" else "cosine",
        warmup_steps=WARMUP,
        logging_steps=EVERY,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    data = [{"x": torch.zeros(1)}] * LONG
    trainer = transformers.Trainer(model=Scripted(), args=arguments, train_dataset=data)
    trainer.train()
    trainer.save_state()
    return folder


def tensorboard_events(folder, name):
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter(str(folder))
    for step, lr, loss in points(name):
        writer.add_scalar("train/learning_rate", lr, step)
        writer.add_scalar("eval/loss", loss, step)
        writer.add_scalar("train/loss", loss + 1, step)
    writer.close()
    return folder


def lightning_csv(folder, name):
    """Lightning's own CSVLogger: rate and loss of a step come in two rows."""
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    logger = loggers.CSVLogger(str(folder.parent), name=folder.name, version="version_0")
    for step, lr, loss in points(name):
        logger.log_metrics({"lr-AdamW": lr}, step=step)
        logger.log_metrics({"val_loss": loss, "epoch": 0}, step=step)
    logger.save()
    target = folder / "version_0" / "metrics.csv"
    named = folder / f"{name}.csv"
    named.write_bytes(target.read_bytes())
    return named


def mlflow_store(folder, name):
    """What MLflow itself writes into its folder; both runs are in it."""
    pytest.importorskip("mlflow")
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = MlflowClient(tracking_uri=(folder / "mlruns").as_uri())
        for run_name in SCHEDULES:
            run = client.create_run("0", run_name=run_name)
            metrics = [
                Metric(key, value, 1000 + step, step)
                for step, lr, loss in points(run_name)
                for key, value in (("lr", lr), ("val_loss", loss))
            ]
            client.log_batch(run.info.run_id, metrics=metrics)
    return folder / "mlruns"


def wandb_offline(folder, name):
    """An offline run by the library itself."""
    wandb = pytest.importorskip("wandb")
    folder.mkdir()
    settings_ = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    with wandb.init(
        mode="offline", dir=str(folder), name=name, project="p", settings=settings_
    ) as run:
        for step, lr, loss in points(name):
            run.log({"train/learning_rate": lr, "eval": {"loss": loss}}, step=step)
    (file,) = folder.rglob("*.wandb")
    wait_for_quiet(file)
    return folder


def wait_for_quiet(file, patience=30.0):
    """Another process writes the file: until it has grown and does so no more."""
    deadline, before = time.monotonic() + patience, -1
    while time.monotonic() < deadline:
        size = file.stat().st_size
        if size == before and size > 1000:
            return
        before = size
        time.sleep(0.3)


def wandb_export(folder, name):
    """The layout of a chart's CSV export: a column and its bounds for each run."""
    folder.mkdir()
    for metric, at in (("eval/loss", 2), ("train/learning_rate", 1)):
        table = {run: list(points(run)) for run in SCHEDULES}
        with (folder / f"{metric.replace('/', '-')}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
            names = [f"{run} - {metric}{end}" for run in table for end in ("", "__MIN", "__MAX")]
            writer.writerow(["Step", *names])
            for rows in zip(*table.values(), strict=True):
                values = [row[at] for row in rows for _ in range(3)]
                writer.writerow([rows[0][0], *values])
    return sorted(folder.glob("*.csv"))


def own_jsonl(folder, name):
    """A plain loop's log."""
    folder.mkdir()
    path = folder / f"{name}.jsonl"
    rows = ({"step": s, "lr": lr, "loss": x} for s, lr, x in points(name))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


WRITERS = [
    transformers_state,
    tensorboard_events,
    lightning_csv,
    mlflow_store,
    wandb_offline,
    wandb_export,
    own_jsonl,
]
BOTH_AT_ONCE = (mlflow_store, wandb_export)


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160"})
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_from_logs_to_a_plan(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["constant"] if write in BOTH_AT_ONCE else list(SCHEDULES)
    written = [write(tmp_path / f"{name}-run", name) for name in names]
    paths = [p for item in written for p in (item if isinstance(item, list) else [item])]

    invoke("fit", *paths, "--out", "law.json")
    law = laws.Predictor.load("law.json")
    assert len(law.evidence.curves) == 2
    assert law.evidence.peak == pytest.approx(PEAK, rel=1e-3)

    plan = tp.Plan(
        horizon=LONG,
        name="wsd",
        lr=tp.schedules.wsd(PEAK, warmup=WARMUP, decay="30%", shape="linear", end=0.0),
    )
    plan.save("wsd.yaml")
    truth = float(TRUTH.predict(plan, at=[LONG - 1])[0])
    out = invoke("predict", "wsd.yaml", "--html", "loss.html")
    assert (tmp_path / "loss.html").stat().st_size > 1_000_000
    found = float(out.split("wsd ")[-1].split()[0])
    assert found == pytest.approx(truth, rel=0.008)

    invoke("optimize", "--horizon", LONG, "--out", "best.yaml")
    best = tp.Plan.load("best.yaml")
    cosine = float(TRUTH.predict(rates_of("cosine"), at=[LONG - 1])[0])
    assert float(TRUTH.predict(best, at=[LONG - 1])[0]) < cosine


def test_a_run_file_of_wandb_that_is_cut_is_read_to_the_cut(tmp_path):
    folder = wandb_offline(tmp_path / "run", "cosine")
    (file,) = folder.rglob("*.wandb")
    (whole,) = laws.load(file)
    raw = file.read_bytes()
    for share in (0.5, 0.9):
        cut = tmp_path / "cut.wandb"
        cut.write_bytes(raw[: int(share * len(raw))])
        (curve,) = laws.load(cut)
        assert 0 < len(curve) <= len(whole)
        assert curve.loss.tolist() == whole.loss[: len(curve)].tolist()
        assert any("cut or damaged" in note for note in curve.notes)
    for damaged in (raw[:6], raw[:7], raw[:7] + b"\x00" * 50, b":W&Bnonsense" * 99):
        (tmp_path / "bad.wandb").write_bytes(damaged)
        with pytest.raises(laws.CurveError):
            laws.load(tmp_path / "bad.wandb")
    random = np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(raw)
        for place in random.integers(0, len(raw), 3):
            bad[place] = random.integers(256)
        (tmp_path / "bad.wandb").write_bytes(bytes(bad))
        try:
            laws.load(tmp_path / "bad.wandb")
        except laws.CurveError:
            continue


def test_a_run_that_is_held_out_is_predicted_and_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = invoke(
        *("fit", "--run", "constant", "--run", "cosine-3000", "--run", "linear-3000"),
        *("--hold-out", "linear-3000"),
    )
    assert "embedded example" in out
    assert "Runs that the law has not seen" in out
    assert laws.Predictor.load("law.json").evidence.curves == ("constant", "cosine-3000")


def test_a_held_out_run_beyond_the_evidence_is_not_predicted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = invoke("fit", "--run", "constant", "--run", "wsd-1500", "--hold-out", "wsd-1500")
    assert "the curves cannot tell" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--run", "constnt"], "no such run"),
        (["fit", "--hold-out", "nothing"], "no such run"),
        (["fit", "--run", "constant", "--hold-out", "constant"], "no run is left"),
        (["fit", "nowhere.csv"], "no such file"),
        (["predict", "wsd.yaml", "--law", "no.json"], "no.json"),
        (["optimize", "--horizon", "1000000"], "more than 4 times"),
    ],
)
def test_mistakes_are_said_in_a_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    tp.Plan(horizon=100, name="wsd", lr=tp.schedules.wsd(PEAK)).save("wsd.yaml")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, tp.errors.PlanError)
    assert message in str(result.exception)


def test_without_a_law_the_example_is_used_and_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, lr in SCHEDULES.items():
        tp.Plan(horizon=2000, name=name, lr=lr).save(f"{name}.yaml")
    out = invoke("predict", "constant.yaml", "cosine.yaml")
    assert "embedded example" in out
    assert "0.001 is taken as the example's 0.004" in out
    assert out.index("cosine  ", out.index("final loss")) < out.index(
        "constant  ", out.index("final loss")
    )
    assert "embedded example" in invoke("optimize", "--horizon", "2000")
    invoke("fit")
    assert "embedded example" not in invoke("optimize", "--horizon", "2000")


def test_the_embedded_curves_are_those_of_their_plans():
    curves = {curve.name: curve for curve in laws.example()}
    assert len(curves) == 9
    assert all(curve.peak == pytest.approx(0.004) for curve in curves.values())
    assert {curve.last + 1 for curve in curves.values()} == {1500, 3000}
    seeds = laws.example("cosine-3000", seeds=True)
    assert [curve.name for curve in seeds] == [f"cosine-3000/{i}" for i in range(3)]
    mean = np.mean([curve.loss for curve in seeds], axis=0)
    np.testing.assert_allclose(curves["cosine-3000"].loss, mean)
    with pytest.raises(laws.CurveError, match="no such run"):
        laws.example("cosine")


def bad_value():
    return st.one_of(
        st.none(),
        st.booleans(),
        st.text(max_size=5),
        st.floats(allow_nan=True, allow_infinity=True),
        st.integers(-(10**30), 10**30),
        st.lists(st.integers(), max_size=2),
        st.dictionaries(st.sampled_from(["step", "x"]), st.integers(), max_size=2),
    )


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_wrong_types_in_a_log_end_in_a_law_or_a_clear_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("wrong")
    rows = [{"step": s, "lr": lr, "loss": x} for s, lr, x in list(points("cosine"))[::4]]
    for _ in range(data.draw(st.integers(1, 4))):
        row = data.draw(st.sampled_from(rows))
        row[data.draw(st.sampled_from(["step", "lr", "loss", "run"]))] = data.draw(bad_value())
    if data.draw(st.booleans()):
        (folder / "x.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    else:
        history = {"log_history": rows, "global_step": data.draw(bad_value())}
        (folder / "trainer_state.json").write_text(json.dumps(history))
    (path,) = folder.iterdir()
    arguments = ["fit", str(path), "--law", "power", "--out", str(folder / "law.json")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 or isinstance(result.exception, tp.errors.PlanError), (
        result.exception
    )


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_law_is_refused_in_words(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("law")
    plain = laws.fit("power", laws.example("constant", "cosine-1500")).to_dict()
    keys = data.draw(st.sampled_from([[k] for k in plain] + [["evidence", "peak"], ["laws", 0]]))
    target = plain
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = data.draw(bad_value())
    text = json.dumps(plain)
    cut = data.draw(st.integers(0, len(text)))
    (folder / "law.json").write_text(text if data.draw(st.booleans()) else text[:cut])
    result = CliRunner().invoke(
        app,
        [
            *("optimize", "--horizon", "1500", "--law", str(folder / "law.json")),
            *("--out", str(folder / "plan.yaml")),
        ],
    )
    assert result.exit_code == 0 or isinstance(result.exception, tp.errors.PlanError), (
        result.exception
    )
