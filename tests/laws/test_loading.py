"""Logs of every kind become the same curve, and what is wrong in them is said."""

from __future__ import annotations

import json
import math
import os
import sqlite3

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trainplan as tp
from trainplan import laws
from trainplan.laws.readers import tensorboard

STEPS = list(range(10, 410, 10))
LOSS = [2.0 + 10 / (s + 5) for s in STEPS]
LR = [1e-3 * min(s / 50, 1.0, (450 - s) / 200) for s in STEPS]


def check(curve, *, exact=True):
    assert curve.steps.tolist() == STEPS
    np.testing.assert_allclose(curve.loss, LOSS, rtol=0 if exact else 1e-6)
    np.testing.assert_allclose(curve.rates[STEPS], LR, rtol=1e-6)


def write_csv(path, rows, header="step,lr,loss"):
    path.write_text(header + "\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return path


@pytest.fixture
def rows():
    return [[s, lr, loss] for s, lr, loss in zip(STEPS, LR, LOSS, strict=True)]


def test_a_csv_table_is_read(tmp_path, rows):
    (curve,) = laws.load(write_csv(tmp_path / "run.csv", rows))
    check(curve)
    assert curve.name == "run"
    assert curve.warmup == 50


def test_other_separators_and_spellings_are_read(tmp_path, rows):
    path = tmp_path / "a.tsv"
    lines = ["Global Step\tLearning Rate\tEval Loss", *("\t".join(map(str, r)) for r in rows)]
    path.write_text("\ufeff" + "\n".join(lines))
    check(laws.load(path)[0])


def test_several_runs_in_one_table_are_told_apart(tmp_path, rows):
    both = [[name, *row] for name in ("a", "b") for row in rows]
    curves = laws.load(write_csv(tmp_path / "x.csv", both, "run,step,lr,loss"))
    assert [c.name for c in curves] == ["a", "b"]
    for curve in curves:
        check(curve)
    assert [c.name for c in laws.load(tmp_path / "x.csv", runs=["b"])] == ["b"]
    with pytest.raises(laws.CurveError, match=r"no such run.*There are: a, b"):
        laws.load(tmp_path / "x.csv", runs=["c"])


def test_json_lines_are_read_and_a_torn_last_line_is_noted(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = [
        json.dumps({"step": s, "train": {"loss": x, "lr": lr}})
        for s, x, lr in zip(STEPS, LOSS, LR, strict=True)
    ]
    path.write_text("\n".join(lines) + '\n{"step": 500, "tra')
    (curve,) = laws.load(path)
    check(curve)
    assert any("torn" in note for note in curve.notes)


def test_the_state_of_a_transformers_trainer_is_read(tmp_path):
    callback = pytest.importorskip("transformers.trainer_callback")
    history = []
    for s, x, lr in zip(STEPS, LOSS, LR, strict=True):
        history.append({"step": s, "loss": x + 0.5, "learning_rate": lr, "epoch": s / 400})
        history.append({"step": s, "eval_loss": x, "eval_runtime": 1.0})
    history.append({"step": 400, "train_loss": 9.0, "train_runtime": 3.0})
    history[0]["loss"] = math.nan
    state = callback.TrainerState(log_history=history, global_step=400)
    for number in (9, 400):
        folder = tmp_path / "out" / f"checkpoint-{number}"
        folder.mkdir(parents=True)
        if number == 400:
            state.save_to_json(str(folder / "trainer_state.json"))
        else:
            (folder / "trainer_state.json").write_text('{"log_history": []}')
    (curve,) = laws.load(tmp_path / "out")
    check(curve)
    (train,) = laws.load(tmp_path / "out" / "checkpoint-400" / "trainer_state.json", loss="loss")
    assert train.steps[0] == 20
    assert "1 losses are not finite" in " ".join(train.notes)


def write_events(folder, points):
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter(str(folder))
    for i, (s, x, lr) in enumerate(points):
        writer.add_scalar("train/loss", x, s, walltime=1000.0 + i)
        writer.add_scalar("train/learning_rate", lr, s, walltime=1000.0 + i, new_style=True)
    writer.close()


def test_tensorboard_events_are_read_with_resumed_runs(tmp_path):
    wrong = [(s, 9.0, 5.0) for s in STEPS[:20]]
    write_events(tmp_path / "run", wrong[:5] + [(s, 7.0, 1.0) for s in STEPS[5:9]])
    points = list(zip(STEPS, LOSS, LR, strict=True))
    for file in (tmp_path / "run").iterdir():
        os.rename(file, tmp_path / "run" / (file.name + ".old"))
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter(str(tmp_path / "run"))
    for i, (s, x, lr) in enumerate(points[1:]):
        writer.add_scalar("train/loss", x, s, walltime=2000.0 + i)
        writer.add_scalar("train/learning_rate", lr, s, walltime=2000.0 + i)
    writer.close()
    (curve,) = laws.load(tmp_path / "run")
    assert curve.steps.tolist() == STEPS
    np.testing.assert_allclose(curve.loss[1:], LOSS[1:], rtol=1e-6)
    assert curve.loss[0] == 9.0  # the one step that was not run again
    assert "8 rows of loss were written again later" in " ".join(curve.notes)


def test_every_point_of_a_long_event_file_is_kept_and_a_cut_one_is_read_to_the_cut(tmp_path):
    write_events(tmp_path / "long", [(s, 2 + 1 / (s + 1), 1e-3) for s in range(12_000)])
    (file,) = (tmp_path / "long").iterdir()
    assert len(laws.load(tmp_path / "long")[0]) == 12_000
    cut = tmp_path / "events.out.tfevents.cut"
    raw = file.read_bytes()
    cut.write_bytes(raw[: len(raw) // 2])
    (curve,) = laws.load(cut)
    assert 5_900 < len(curve) < 6_100
    assert any("cut or damaged" in note for note in curve.notes)


def test_the_checksum_of_records_is_the_published_one():
    # RFC 3720, B.4: CRC-32C of 32 zero bytes is 8a9136aa.
    assert tensorboard.masked_crc(bytes(32)) == (
        ((0x8A9136AA >> 15 | 0x8A9136AA << 17) + 0xA282EAD8) & 0xFFFFFFFF
    )


def wandb_text(metric, values, runs, bounds=True):
    names = ["Step"]
    for run in runs:
        names += [f"{run} - {metric}"]
        names += [f"{run} - {metric}__MIN", f"{run} - {metric}__MAX"] if bounds else []
    lines = [",".join(f'"{n}"' for n in names)]
    for s, x in zip(STEPS, values, strict=True):
        lines.append(",".join(f'"{v}"' for v in [s] + [x] * (len(names) - 1)))
    return "\n".join(lines)


def test_wandb_exports_are_put_together_from_two_charts(tmp_path):
    runs = ["grpo - 3b.v1", "base_run"]
    (tmp_path / "loss.csv").write_text(wandb_text("eval/loss", LOSS, runs))
    (tmp_path / "lr.csv").write_text(wandb_text("train/learning_rate", LR, runs))
    curves = laws.load(tmp_path / "loss.csv", tmp_path / "lr.csv")
    assert [c.name for c in curves] == runs
    for curve in curves:
        check(curve)
    with pytest.raises(laws.CurveError, match=r"no column with a learning rate.*eval/loss.*plan="):
        laws.load(tmp_path / "loss.csv")


def test_a_binned_wandb_chart_is_noted(tmp_path):
    text = wandb_text("loss", LOSS, ["r"]).replace('"2.0', '"2.1', 1)
    (tmp_path / "loss.csv").write_text(text)
    notes = " ".join(laws.load(tmp_path / "loss.csv", plan=np.array([1e-3]))[0].notes)
    assert "binned" in notes


def make_mlflow_db(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE runs (run_uuid TEXT, name TEXT)")
        db.execute(
            "CREATE TABLE metrics (key TEXT, value REAL, timestamp INTEGER, run_uuid TEXT, "
            "step INTEGER, is_nan INTEGER)"
        )
        db.execute("INSERT INTO runs VALUES ('abc', 'my run')")
        for i, (s, x, lr) in enumerate(zip(STEPS, LOSS, LR, strict=True)):
            db.execute("INSERT INTO metrics VALUES ('loss', ?, ?, 'abc', ?, 0)", (x, i, s))
            db.execute("INSERT INTO metrics VALUES ('lr', ?, ?, 'abc', ?, 0)", (lr, i, s))
        db.execute("INSERT INTO metrics VALUES ('loss', 0, 999, 'abc', 405, 1)")
    db.close()


def test_an_mlflow_database_is_read_and_its_nan_marks_are_honoured(tmp_path):
    make_mlflow_db(tmp_path / "mlflow.db")
    (curve,) = laws.load(tmp_path / "mlflow.db")
    check(curve)
    assert curve.name == "my run"
    assert "1 losses are not finite" in " ".join(curve.notes)
    check(laws.load(tmp_path)[0])


def test_an_mlflow_file_store_is_read(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    run = client.create_run("0", run_name="warm")
    for s, x, lr in zip(STEPS, LOSS, LR, strict=True):
        client.log_metric(run.info.run_id, "val/loss", x, step=s)
        client.log_metric(run.info.run_id, "lr", lr, step=s)
    (curve,) = laws.load(tmp_path / "mlruns")
    check(curve)
    assert curve.name == "warm"
    assert mlflow


def test_lightning_logs_are_read(tmp_path):
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    logger = loggers.CSVLogger(str(tmp_path), name="", version="v0")
    for s, x, lr in zip(STEPS, LOSS, LR, strict=True):
        logger.log_metrics({"lr-AdamW": lr}, step=s)
        logger.log_metrics({"val_loss": x, "epoch": 0}, step=s)
    logger.save()
    check(laws.load(tmp_path / "v0")[0])


def test_the_rate_can_come_from_a_plan_or_its_file(tmp_path, rows):
    plan = tp.Plan(horizon=400, lr=tp.schedules.wsd(1e-3, warmup=50, decay=100))
    path = write_csv(tmp_path / "r.csv", [[s, x] for s, _, x in rows], "step,loss")
    plan.save(tmp_path / "plan.yaml")
    for given_plan in (plan, plan["lr"], tmp_path / "plan.yaml", {"r": plan}):
        (curve,) = laws.load(path, plan=given_plan)
        assert curve.rates.tolist() == plan["lr"](np.arange(401)).tolist()
        assert curve.warmup == 50


def test_missing_columns_are_named_with_those_that_are_there(tmp_path, rows):
    path = write_csv(tmp_path / "r.csv", rows, "step,lr,cost")
    with pytest.raises(
        laws.CurveError, match=r"no column with a loss\. Columns there are: cost, lr"
    ):
        laws.load(path)
    check(laws.load(path, loss="cost")[0])
    path = write_csv(tmp_path / "r.csv", rows, "tick,lr,loss")
    with pytest.raises(laws.CurveError, match=r"counts steps.*tick, lr, loss.*step="):
        laws.load(path)
    check(laws.load(path, step="tick")[0])
    with pytest.raises(laws.CurveError, match="no column 'x'"):
        laws.load(path, step="tick", loss="x")


def test_a_resumed_run_replaces_what_it_repeats(tmp_path, rows):
    bad = [[s, lr, 9.0] for s, lr, _ in rows[20:30]]
    (curve,) = laws.load(write_csv(tmp_path / "r.csv", rows[:20] + bad + rows[20:]))
    check(curve)
    assert "10 rows of loss were written again" in " ".join(curve.notes)


def test_a_table_of_several_unnamed_runs_is_refused(tmp_path, rows):
    with pytest.raises(laws.CurveError, match=r"goes back to its first step.*column 'run'"):
        laws.load(write_csv(tmp_path / "r.csv", rows + rows))


def test_spikes_and_gaps_are_reported_and_only_spikes_left_out(tmp_path, rows):
    rows[20][2] *= 1.5
    del rows[30:38]
    path = write_csv(tmp_path / "r.csv", rows)
    (curve,) = laws.load(path)
    notes = " ".join(curve.notes)
    assert "1 spikes left out, at step 210" in notes
    assert "no loss between steps 300 and 390" in notes
    assert len(curve) == 31
    assert len(laws.load(path, spikes="keep")[0]) == 32


def test_a_drop_between_constant_stretches_is_put_in_the_middle(tmp_path):
    rows = [[s, 1e-3 if s < 250 else 1e-4, 3.0 - s / 1000] for s in range(0, 500, 20)]
    (curve,) = laws.load(write_csv(tmp_path / "r.csv", rows))
    assert curve.rates[249] == 1e-3
    assert curve.rates[250] == 1e-4


def test_the_warmup_before_the_first_logged_rate_can_be_told(tmp_path):
    rows = [[s, 1e-3, 3.0 - s / 1000] for s in range(200, 500, 20)]
    path = write_csv(tmp_path / "r.csv", rows)
    assert laws.load(path)[0].rates[100] == pytest.approx(5e-4)
    told = laws.load(path, warmup=100)[0]
    assert told.rates[50] == pytest.approx(5e-4)
    assert told.rates[150] == pytest.approx(1e-3)
    assert laws.load(path, warmup=0)[0].rates[0] == pytest.approx(1e-3)


def test_what_is_not_there_is_said(tmp_path):
    for path, match in [
        (tmp_path / "no.csv", "no such file"),
        (tmp_path, "holds no log that is known"),
    ]:
        with pytest.raises(laws.CurveError, match=match):
            laws.load(path)
    with pytest.raises(laws.CurveError, match="no path"):
        laws.load()
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(laws.CurveError, match="empty"):
        laws.load(tmp_path / "empty.csv")


def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    rows = [[s, lr, loss] for s, lr, loss in zip(STEPS[:8], LR, LOSS, strict=False)]
    write_csv(folder / "a.csv", rows)
    (folder / "a.jsonl").write_text(
        "\n".join(json.dumps({"step": s, "lr": lr, "loss": x}) for s, lr, x in rows)
    )
    history = [{"step": s, "learning_rate": lr, "loss": x} for s, lr, x in rows]
    (folder / "a.json").write_text(json.dumps({"log_history": history}))
    make_mlflow_db(folder / "a.db")
    (folder / "w.csv").write_text(wandb_text("loss", LOSS, ["r - x"]))
    write_events(folder / "tb", rows)
    (events,) = (folder / "tb").iterdir()
    events.rename(folder / "events.out.tfevents.1")
    return [path for path in sorted(folder.iterdir()) if path.is_file()]


@pytest.fixture(scope="module")
def seed_files(tmp_path_factory):
    return seeds(tmp_path_factory)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_logs_give_a_curve_or_a_clear_error(seed_files, tmp_path_factory, data):
    path = data.draw(st.sampled_from(seed_files))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        i = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        kind = data.draw(st.sampled_from(["byte", "cut", "insert", "repeat"]))
        if kind == "byte" and raw:
            raw[i] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del raw[i : i + data.draw(st.integers(1, 200))]
        elif kind == "insert":
            raw[i:i] = data.draw(
                st.sampled_from(
                    [b"nan", b"-", b"1e999", b",,", b'"', b"\n", b"\x00", b"{[", b"1e30"]
                )
            )
        else:
            raw[i:i] = raw[i : i + 50]
    broken = tmp_path_factory.mktemp("broken") / path.name
    broken.write_bytes(bytes(raw))
    try:
        curves = laws.load(broken)
    except laws.CurveError:
        return
    for curve in curves:
        assert np.isfinite(curve.loss).all()
        assert np.isfinite(curve.rates).all()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=st.binary(max_size=300), suffix=st.sampled_from([".csv", ".json", ".jsonl", ".db", ""]))
def test_arbitrary_bytes_give_a_clear_error(tmp_path_factory, raw, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"x{suffix}"
    path.write_bytes(raw)
    with pytest.raises(laws.CurveError):
        laws.load(path)
