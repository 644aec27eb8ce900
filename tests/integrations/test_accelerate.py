"""Under Accelerate a plan counts updates: not calls, batches or processes."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")

from accelerate.state import AcceleratorState, GradientState  # noqa: E402

import trainplan as tp  # noqa: E402

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "docs" / "examples" / "with_accelerate.py"
STEPS = 12


def load(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = load(EXAMPLE)
plan = example.plan
RATES = [plan.at(t)["lr"] for t in range(STEPS)]


@pytest.fixture(autouse=True)
def alone():
    """Forget the accelerators of other tests, which share their state."""
    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    forget()


def forget():
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    forget()
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, *example.fit(folder, STEPS)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two processes found."""
    folder = tmp_path_factory.mktemp("pair")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE / "two_processes.py"), str(EXAMPLE), str(folder)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    found = []
    try:
        for process in started:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            found.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in started:
            process.kill()
    return found


def plain(steps, batch=4, accumulate=1):
    """The same training in plain PyTorch, with batches of all processes together."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    tp.torch.attach(plan, optimizer)
    x, y = example.examples().tensors
    for t in range(steps):
        for i in range(accumulate):
            start = (t * accumulate + i) * batch % len(x)
            now = slice(start, start + batch)
            (torch.nn.functional.mse_loss(model(x[now]), y[now]) / accumulate).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach() for p in model.parameters()]


def same(model, parameters):
    pairs = zip(model.parameters(), parameters, strict=True)
    return all(torch.equal(p, q) for p, q in pairs)


# One process


def test_training_equals_plain_pytorch(uninterrupted):
    _, model, run, rates = uninterrupted
    assert run.t == STEPS
    assert rates == RATES
    assert same(model, plain(STEPS))


@pytest.mark.parametrize("step", range(1, STEPS))
def test_resuming_at_any_step_changes_nothing(uninterrupted, tmp_path, step):
    folder, model, _, _ = uninterrupted
    resumed, run, rates = example.fit(tmp_path, STEPS, resume=folder / f"step-{step}")
    assert run.t == STEPS
    assert rates == RATES[step:]
    assert same(resumed, model.parameters())


def test_accumulated_batches_make_one_update(tmp_path):
    model, run, rates = example.fit(tmp_path, 5, accumulate=2)
    assert run.t == 5
    assert rates == RATES[:5]
    assert same(model, plain(5, accumulate=2))


def test_an_extended_plan_goes_on_from_a_checkpoint_and_another_past_is_refused(tmp_path):
    short = tp.Plan(horizon=STEPS, lr=plan.knobs["lr"])
    example.fit(tmp_path, STEPS, short)
    longer = short.extend(at=6, horizon=20)
    _, _, rates = example.fit(tmp_path, 20, longer, resume=tmp_path / "step-6")
    assert rates == [longer.at(t)["lr"] for t in range(6, 20)]
    forget()
    with pytest.raises(tp.PlanError, match="the past would change"):
        example.fit(tmp_path, 20, short.replace(horizon=20), resume=tmp_path / "step-6")


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_optimizer_may_be_prepared_before_or_after(when):
    accelerator = accelerate.Accelerator(cpu=True)
    weight = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight], lr=9.0)
    if when == "before":
        optimizer = accelerator.prepare(optimizer)
    run = tp.accelerate.attach(plan.replace(weight_decay=0.0), optimizer, accelerator)
    if when == "after":
        optimizer = accelerator.prepare(optimizer)
    for t in range(STEPS):
        weight.grad = torch.ones(())
        optimizer.step()
        assert run.values["lr"] == RATES[t]
    assert weight.item() == pytest.approx(1 - sum(RATES), rel=1e-6)


def test_a_prepared_scheduler_beside_the_plan_is_refused():
    accelerator = accelerate.Accelerator(cpu=True)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(()))])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    optimizer, scheduler = accelerator.prepare(optimizer, scheduler)
    with pytest.raises(tp.PlanError, match=r"lr: a prepared scheduler drives it too.*StepLR"):
        tp.accelerate.attach(plan.replace(weight_decay=0.0), optimizer, accelerator)


# Two processes


def test_two_processes_use_the_values_of_one(pair):
    for found in pair:
        assert found["processes"] == 2
        assert found["whole"]["steps"] == STEPS
        assert found["whole"]["rates"] == RATES
        assert found["split"]["rates"] == RATES
        assert found["accumulated"]["rates"] == RATES[:5]


def test_processes_stay_alike(pair):
    first, second = pair
    for kind in ("whole", "split", "accumulated", "resumed", "listening"):
        assert first[kind] == second[kind]


@pytest.mark.parametrize(
    ("kind", "steps", "batch", "accumulate"),
    [("whole", STEPS, 8, 1), ("split", STEPS, 4, 1), ("accumulated", 5, 8, 2)],
)
def test_two_processes_train_as_one_with_their_batches_together(
    pair, kind, steps, batch, accumulate
):
    expected = plain(steps, batch, accumulate)
    for ours, reference in zip(pair[0][kind]["weights"], expected, strict=True):
        torch.testing.assert_close(torch.tensor(ours), reference, rtol=1e-5, atol=1e-6)


def test_two_processes_resume(pair):
    for found in pair:
        assert found["resumed"]["weights"] == found["whole"]["weights"]
        assert found["resumed"]["rates"] == RATES[5:]


def test_controllers_hear_the_mean_over_processes(pair):
    first, second = pair
    assert first["heard"] == second["heard"]
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    x, y = example.examples().tensors
    halves = [torch.nn.functional.mse_loss(model(x[i : i + 4]), y[i : i + 4]) for i in (0, 4)]
    assert first["heard"][0] == pytest.approx(float(sum(halves)) / 2, rel=1e-6)
    assert halves[0].item() != pytest.approx(halves[1].item(), rel=1e-2)


def test_data_of_all_processes_is_counted(pair):
    assert [found["counted"] for found in pair] == [30, 30]
