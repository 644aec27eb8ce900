"""Gradient norms are recorded as they are before clipping, once per update that was made."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import trainplan as tp  # noqa: E402
from trainplan.integrations.gradnorms import GradNormRecorder  # noqa: E402


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).to(
        dtype
    )


def loss_of(model, seed):
    data = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    return model(torch.randn(7, 3, generator=data, dtype=dtype)).square().mean()


def flat_gradient(model):
    return torch.cat([p.grad.ravel() for p in model.parameters()])


def true_norms(model):
    gradient = flat_gradient(model)
    return gradient.abs().sum().item(), gradient.norm().item()


def train(model, optimizer, updates, first=0, clip=0.01):
    """Train with clipping; the norms that every update had before it."""
    norms = []
    for step in range(first, first + updates):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        norms.append(true_norms(model))
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return norms


def test_an_attached_recorder_sees_the_gradient_before_clipping():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = GradNormRecorder(model).attach(optimizer)
    norms = train(model, optimizer, 5)
    assert recorder.steps == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(list(zip(recorder.l1, recorder.l2, strict=True)), norms, rtol=1e-6)
    assert min(recorder.l2) > 0.01


def test_recording_by_hand_gives_the_same_norms():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = GradNormRecorder(optimizer.param_groups)
    loss_of(model, 0).backward()
    recorder.record()
    assert (recorder.l1[0], recorder.l2[0]) == pytest.approx(true_norms(model), rel=1e-6)


def test_recording_changes_nothing():
    weights = []
    for recording in (False, True):
        model = network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        if recording:
            GradNormRecorder(model).attach(optimizer)
        train(model, optimizer, 4)
        weights.append(torch.cat([p.detach().ravel() for p in model.parameters()]))
    assert torch.equal(*weights)


def test_micro_batches_count_as_one_update_with_their_sum():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = GradNormRecorder(model).attach(optimizer)
    for step in range(2):
        optimizer.zero_grad()
        for micro in range(3):
            (loss_of(model, 3 * step + micro) / 3).backward()
        last = true_norms(model)
        optimizer.step()
    assert recorder.count == 2
    assert (recorder.l1[-1], recorder.l2[-1]) == pytest.approx(last, rel=1e-6)


def test_checkpointed_activations_are_measured_when_all_gradients_are_there():
    from torch.utils.checkpoint import checkpoint

    for reentrant in (False, True):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        recorder = GradNormRecorder(model).attach(optimizer)
        x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
        hidden = checkpoint(model[:2], x, use_reentrant=reentrant)
        model[2](hidden).square().mean().backward()
        optimizer.step()
        assert (recorder.l1[0], recorder.l2[0]) == pytest.approx(true_norms(model), rel=1e-6)


def test_a_scaled_loss_gives_true_norms_and_a_skipped_update_none():
    model = network(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    recorder = GradNormRecorder(model).attach(optimizer, scaler=scaler)
    expected = []
    for step in range(4):
        optimizer.zero_grad()
        overflow = math.inf if step == 1 else 1.0
        scaler.scale(overflow * loss_of(model, step)).backward()
        scaler.unscale_(optimizer)
        if step != 1:
            expected.append(true_norms(model))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        scaler.step(optimizer)
        scaler.update()
    assert recorder.count == 3
    recorded = list(zip(recorder.l1, recorder.l2, strict=True))
    np.testing.assert_allclose(recorded, expected, rtol=1e-4)


def test_a_fused_optimizer_that_skips_an_update_is_not_recorded():
    model = network(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    recorder = GradNormRecorder(model).attach(optimizer, scaler=scaler)
    for overflow in (1.0, math.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale(overflow * loss_of(model, 0)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert recorder.steps == [1, 2]
    assert np.isfinite(recorder.l1).all()


def test_every_kth_update_is_recorded():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = GradNormRecorder(model, every=3).attach(optimizer)
    norms = train(model, optimizer, 8)
    assert recorder.steps == [1, 4, 7]
    assert recorder.l2 == pytest.approx([norms[i][1] for i in (0, 3, 6)], rel=1e-6)


def test_more_updates_than_are_kept_on_the_device():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    recorder = GradNormRecorder([weight]).attach(optimizer)
    for step in range(600):
        optimizer.zero_grad()
        (weight * (step + 1)).sum().backward()
        optimizer.step()
    assert recorder.l1 == [float(step + 1) for step in range(600)]


def test_resuming_at_any_update_changes_nothing():
    whole = network()
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1)
    recorder = GradNormRecorder(whole, every=2).attach(optimizer)
    train(whole, optimizer, 6)
    for stop in range(7):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        first = GradNormRecorder(model, every=2).attach(optimizer)
        train(model, optimizer, stop)
        state = json.loads(json.dumps(first.state_dict()))
        first.detach()
        second = GradNormRecorder(model, every=2)
        second.load_state_dict(state)
        second.attach(optimizer)
        train(model, optimizer, 6 - stop, first=stop)
        assert second.state_dict() == recorder.state_dict()


def test_a_detached_recorder_stops():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = GradNormRecorder(model).attach(optimizer)
    train(model, optimizer, 1)
    recorder.detach()
    train(model, optimizer, 2)
    assert recorder.steps == [1]


def test_a_file_is_read_back_up_to_a_step(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = GradNormRecorder(model).attach(optimizer)
    train(model, optimizer, 5)
    recorder.save(tmp_path / "norms.csv")
    again = GradNormRecorder(model)
    again.load(tmp_path / "norms.csv", done=3)
    assert (again.count, again.steps, again.l1) == (3, [1, 2, 3], recorder.l1[:3])
    (tmp_path / "norms.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(tp.PlanError, match="not a file of gradient norms"):
        again.load(tmp_path / "norms.csv", done=3)


def test_recorded_norms_refine_a_schedule():
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    recorder = GradNormRecorder([weight]).attach(optimizer)
    for _ in range(50):
        optimizer.zero_grad()
        weight.sum().backward()
        optimizer.step()
    lr = tp.schedules.refine(recorder.norms("sgd"), 0.1, optimizer="sgd").resolve(50)
    assert recorder.norms("sgd") == pytest.approx(math.sqrt(3))
    assert recorder.norms("adam").tolist() == [3.0] * 50
    assert lr(25) == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda: GradNormRecorder([]), "nothing that is trained"),
        (lambda: GradNormRecorder(network().requires_grad_(False)), "nothing that is trained"),
        (lambda: GradNormRecorder(network(), every=0), "every"),
        (lambda: attached().record(), "records by itself"),
        (lambda: attached().watch(), "attached already"),
    ],
)
def test_misuse_is_named(misuse, message):
    with pytest.raises(tp.PlanError, match=message):
        misuse()


def attached():
    model = network()
    return GradNormRecorder(model).attach(torch.optim.SGD(model.parameters(), lr=0.1))


def test_gradients_averaged_over_processes_at_the_end_are_measured_after_that():
    """DistributedDataParallel writes the averages in a callback that it queues late."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = GradNormRecorder(model).attach(optimizer)
    engine = torch.autograd.Variable._execution_engine

    def average():
        for p in model.parameters():
            p.grad /= 2

    first = model[0].weight  # the last whose gradient is computed
    first.register_post_accumulate_grad_hook(lambda p: engine.queue_callback(average))
    loss_of(model, 0).backward()
    optimizer.step()
    assert (recorder.l1[0], recorder.l2[0]) == pytest.approx(true_norms(model), rel=1e-6)


# Transformers


@pytest.fixture
def trainer_of(tmp_path):
    transformers = pytest.importorskip("transformers")
    from trainplan.integrations.hf_gradnorms import GradNormCallback

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, x, labels):
            return {"loss": (self.layer(x).squeeze(-1) - labels).square().mean()}

    data = torch.Generator().manual_seed(0)
    rows = [{"x": torch.randn(4, generator=data), "labels": float(i % 3)} for i in range(32)]

    def build(steps, file, **more):
        args = transformers.TrainingArguments(
            str(tmp_path / "out"),
            max_steps=steps,
            per_device_train_batch_size=4,
            save_steps=3,
            max_grad_norm=0.01,
            lr_scheduler_type="constant",
            learning_rate=0.1,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            logging_steps=1,
            **more,
        )
        callback = GradNormCallback(file)
        model = Model()
        return transformers.Trainer(model, args, train_dataset=rows, callbacks=[callback])

    return build


def test_trainer_norms_are_those_before_clipping_and_survive_a_resume(trainer_of, tmp_path):
    whole, part = tmp_path / "whole.csv", tmp_path / "part.csv"
    trainer = trainer_of(6, whole)
    trainer.train()
    lines = whole.read_text().splitlines()
    assert lines[0] == "step,grad_l1,grad_l2"
    assert [line.split(",")[0] for line in lines[1:]] == [str(i) for i in range(1, 7)]
    logged = [row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row]
    recorded = [float(line.split(",")[2]) for line in lines[1:]]
    assert recorded == pytest.approx(logged, rel=1e-4)
    assert min(recorded) > 0.01

    trainer_of(5, part).train()  # its checkpoint is of step 3, its file of step 5
    trainer_of(6, part).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    assert part.read_text() == whole.read_text()


def test_trainer_accumulation_is_one_row_per_update(trainer_of, tmp_path):
    file = tmp_path / "norms.csv"
    trainer = trainer_of(3, file, gradient_accumulation_steps=2)
    trainer.train()
    logged = [row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row]
    recorded = [float(line.split(",")[2]) for line in file.read_text().splitlines()[1:]]
    assert recorded == pytest.approx(logged, rel=1e-4)


def test_a_folder_that_is_not_there_is_refused_before_training(tmp_path):
    pytest.importorskip("transformers")
    from trainplan.integrations.hf_gradnorms import GradNormCallback

    with pytest.raises(tp.PlanError, match="no such folder"):
        GradNormCallback(tmp_path / "absent" / "norms.csv")
