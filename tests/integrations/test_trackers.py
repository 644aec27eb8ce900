"""What a plan did arrives in each tracker: every knob, every state, at the step that used it."""

import importlib.util
import json
import os
import sqlite3
import struct
import subprocess
import sys
import time
import warnings

import pytest

torch = pytest.importorskip("torch")

import with_trackers as example  # noqa: E402

import trainplan as tp  # noqa: E402

STEPS = 8


@pytest.fixture
def expected():
    """The rows as a plain function receives them."""
    rows = {}
    example.train(lambda values, step: rows.update({step: dict(values)}))
    return rows


def test_a_row_holds_the_values_used_and_what_controllers_know(expected):
    assert list(expected) == list(range(STEPS))
    decay = tp.schedules.linear(0.1, end=0.01).resolve(STEPS)
    assert [row["plan/weight_decay"] for row in expected.values()] == [
        decay(t) for t in range(STEPS)
    ]
    assert all(row["plan/betas/1"] == 0.95 for row in expected.values())
    rates = [row["plan/lr"] for row in expected.values()]
    assert rates[0] == 0.1
    assert rates[-1] < 0.1, "the example is meant to reach a plateau"
    # The first row is written before the controller has heard anything: no best loss yet.
    assert "plan/state/lr/best" not in expected[0]
    assert all("plan/state/lr/best" in expected[t] for t in range(1, STEPS))
    assert all(type(x) in (int, float) for row in expected.values() for x in row.values())


def long_form(rows):
    return {(name, step): value for step, row in rows.items() for name, value in row.items()}


def test_tensorboard(tmp_path, expected):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        example.train(writer)
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    found = {
        (name, event.step): event.value
        for name in events.Tags()["scalars"]
        for event in events.Scalars(name)
    }
    assert found == pytest.approx(long_form(expected), rel=1e-6)


def test_wandb_offline(tmp_path, monkeypatch, expected):
    wandb = pytest.importorskip("wandb")
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_DIR": str(tmp_path),
        "WANDB_CACHE_DIR": str(tmp_path / "cache"),
        "WANDB_CONFIG_DIR": str(tmp_path / "config"),
        "WANDB_DATA_DIR": str(tmp_path / "data"),
    }.items():
        monkeypatch.setenv(name, value)
    with wandb.init(project="trainplan-test", dir=tmp_path) as run:
        example.train(run)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    wait_for_quiet(file)
    assert wandb_rows(file) == {step: pytest.approx(row) for step, row in expected.items()}


def wait_for_quiet(file, patience=30.0):
    """Until a file that another process writes has grown past its header and stopped growing."""
    deadline, before = time.monotonic() + patience, -1
    while time.monotonic() < deadline:
        size = file.stat().st_size
        if size == before and size > 1000:
            return
        before = size
        time.sleep(0.5)


def wandb_rows(file):
    """The history in an offline run's file, which is a LevelDB log of protocol buffers."""
    from wandb.proto import wandb_internal_pb2

    data, place, rows, record = file.read_bytes(), 7, {}, b""
    while place < len(data):
        if 32768 - place % 32768 < 7:  # the rest of a block too small for a header
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (2, 3):  # the record goes on in the next piece
            continue
        parsed = wandb_internal_pb2.Record.FromString(record)
        record = b""
        if parsed.WhichOneof("record_type") == "history":
            row = {i.key or "/".join(i.nested_key): i.value_json for i in parsed.history.item}
            step = json.loads(row["_step"])
            rows[step] = {k: json.loads(v) for k, v in row.items() if k.startswith("plan/")}
    return rows


def test_mlflow(tmp_path, monkeypatch, expected):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow")
    database = importlib.util.find_spec("sqlalchemy") and importlib.util.find_spec("alembic")
    store = f"sqlite:///{tmp_path}/mlflow.db" if database else (tmp_path / "mlruns").as_uri()
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with mlflow.start_run() as run:
                example.train(mlflow)
        client = mlflow.MlflowClient(store)
        found = {
            (name, metric.step): metric.value
            for name in expected[STEPS - 1]
            for metric in client.get_metric_history(run.info.run_id, name)
        }
    finally:
        mlflow.set_tracking_uri(before)
    assert found == pytest.approx(long_form(expected))


TRACKIO = """
import trackio, with_trackers
trackio.init(project="trainplan-test", name="one", embed=False)
with_trackers.train(trackio)
trackio.finish()
"""


def test_trackio(tmp_path, expected):
    pytest.importorskip("trackio")
    # In its own process: trackio reads its folder once, when it is first imported.
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {"TRACKIO_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths}
    subprocess.run(
        [sys.executable, "-c", TRACKIO],
        env=os.environ | environment,
        check=True,
        timeout=120,
        capture_output=True,
    )
    found = {}
    for file in tmp_path.rglob("*.db"):
        with sqlite3.connect(file) as database:
            tables = {row[0] for row in database.execute("select name from sqlite_master")}
            if "metrics" in tables:
                for step, metrics in database.execute("select step, metrics from metrics"):
                    found[step] = json.loads(metrics)
    assert found == {step: pytest.approx(row) for step, row in expected.items()}


def test_lightning_loggers(tmp_path, expected):
    pytest.importorskip("lightning")
    pytest.importorskip("tensorboard")
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path)
    example.train(logger)
    logger.save()
    text = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert len(text.splitlines()) == STEPS + 1
    assert "plan/state/lr/best" in text.splitlines()[0]


def test_the_transformers_tracker_receives_the_same_names(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    pytest.importorskip("tensorboard")
    import with_transformers as hf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    controller = tp.schedules.ReduceOnPlateau(0.01, factor=0.5, patience=0, threshold=0.9)
    plan = tp.Plan(horizon=4, lr=controller, weight_decay=tp.schedules.linear(0.1))
    options = {"report_to": "tensorboard", "save_strategy": "no"}
    trainer = transformers.Trainer(
        hf.model(), hf.arguments(tmp_path, 4, **options), train_dataset=hf.sentences()
    )
    tp.transformers.attach(plan, trainer)
    trainer.train()
    events = EventAccumulator(str(tmp_path / "logs"), size_guidance={"scalars": 0}).Reload()
    decay = {event.step: event.value for event in events.Scalars("train/plan/weight_decay")}
    assert decay == pytest.approx({t + 1: plan["weight_decay"](t) for t in range(4)})
    assert "train/plan/state/lr/bad" in events.Tags()["scalars"]


def test_every_thins_the_rows():
    steps = []
    tracker = tp.trackers.to(lambda values, step: steps.append(step), every=3)
    for t in range(8):
        tracker.log_values({"lr": 0.1}, step=t)
    assert steps == [0, 3, 6]


def test_values_without_a_run_are_logged_by_name():
    rows = []
    tracker = tp.trackers.to(lambda values, step: rows.append((step, values)), prefix="")
    tracker.log_values({"lr": torch.tensor(0.5), "betas": (0.9, 0.95)}, step=3)
    assert rows == [(3, {"lr": 0.5, "betas/0": 0.9, "betas/1": 0.95})]


def test_mistakes_are_named():
    with pytest.raises(
        tp.PlanError, match=r"target: not a tracker that is known \(got 'tensorboard'"
    ):
        tp.trackers.to("tensorboard")
    with pytest.raises(tp.PlanError, match=r"every: .*at least 1"):
        tp.trackers.to(print, every=0)


def test_the_room_needs_no_tracker_and_no_torch():
    import subprocess
    import sys

    code = "import sys, trainplan as tp; tp.trackers.to(print); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
