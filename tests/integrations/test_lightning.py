"""Lightning's trainer follows a plan, and a resumed run is the run that was never interrupted."""

import csv
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("lightning")
pytest.importorskip("torchdata")

import numpy as np  # noqa: E402
import with_lightning as example  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

import trainplan as tp  # noqa: E402

STEPS = 12
plan = example.plan


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    module, trainer = example.fit(folder, STEPS)
    return folder, module, trainer


def plain(plan, steps=STEPS, accumulate=1, size=8):
    """The same training without Lightning and without hooks: values assigned step by step."""
    module = example.Regression()
    optimizer = module.configure_optimizers()
    stream = (batch for _ in range(99) for batch in example.batches(size))
    for t in range(steps):
        optimizer.param_groups[0].update(plan.at(t))
        optimizer.zero_grad()
        for _ in range(accumulate):
            x, y = next(stream)
            (torch.nn.functional.mse_loss(module.layer(x), y) / accumulate).backward()
        optimizer.step()
    return module


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def rows(folder):
    """Logged numbers by name, then by step."""
    found = {}
    for file in sorted(folder.glob("lightning_logs/*/metrics.csv")):
        with file.open() as stream:
            for row in csv.DictReader(stream):
                for name, value in row.items():
                    if value and name != "step":
                        found.setdefault(name, {})[int(row["step"])] = float(value)
    return found


def test_training_equals_plain_pytorch(uninterrupted):
    _, module, _ = uninterrupted
    assert same(module, plain(plan))


@pytest.mark.parametrize("step", range(1, STEPS))
def test_resuming_at_any_step_changes_nothing(uninterrupted, tmp_path, step):
    folder, module, _ = uninterrupted
    resumed, trainer = example.fit(tmp_path, STEPS, resume=folder / f"step={step}.ckpt")
    assert trainer.global_step == STEPS
    assert same(resumed, module)


def test_accumulated_batches_make_one_update(tmp_path):
    module, trainer = example.fit(tmp_path, STEPS, accumulate_grad_batches=2)
    assert trainer.global_step == STEPS
    for a, b in zip(module.parameters(), plain(plan, accumulate=2).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("step", [3, 6])
def test_resuming_under_accumulation_changes_nothing(tmp_path, step):
    module, _ = example.fit(tmp_path, STEPS, accumulate_grad_batches=2)
    resumed, _ = example.fit(
        tmp_path / "resumed",
        STEPS,
        resume=tmp_path / f"step={step}.ckpt",
        accumulate_grad_batches=2,
    )
    assert same(resumed, module)


def test_every_logged_value_is_the_one_used_in_the_row_of_its_loss(uninterrupted):
    logged = rows(uninterrupted[0])
    t = np.arange(STEPS)
    assert sorted(logged["loss"]) == t.tolist()
    for name, values in {
        "lr-AdamW": plan["lr"](t),  # the monitor stands before our callback
        "plan/lr": plan["lr"](t),
        "plan/weight_decay": plan["weight_decay"](t),
        "plan/betas/1": np.full(STEPS, 0.95),
    }.items():
        assert [logged[name][i] for i in t] == values.tolist(), name


def test_a_checkpoint_loads_without_running_code_from_it(uninterrupted):
    state = torch.load(uninterrupted[0] / "step=7.ckpt", weights_only=True)
    ours = state["callbacks"]["PlanCallback{'optimizer': 0}"]
    assert ours["run"] == {
        "clock": {"steps": 7, "tokens": 0, "samples": 0},
        "controllers": {},
    }


def test_an_extended_plan_continues_at_once(uninterrupted, tmp_path):
    longer = plan.replace(weight_decay=0.1)
    example.fit(tmp_path / "short", 8, plan=longer)
    longer = longer.extend(at=8, horizon=20)
    module, _ = example.fit(tmp_path, 20, plan=longer, resume=tmp_path / "short" / "step=8.ckpt")
    assert same(module, plain(longer, steps=20))


def test_a_plan_with_another_past_is_refused(uninterrupted, tmp_path):
    other = plan.replace(lr=plan.knobs["lr"] * 2.0)
    with pytest.raises(tp.PlanError, match=r"lr: .*it was .* and would be"):
        example.fit(tmp_path, STEPS, plan=other, resume=uninterrupted[0] / "step=7.ckpt")


def test_calling_fit_again_goes_on(tmp_path):
    trainer = lightning.Trainer(
        max_epochs=2,
        callbacks=[tp.lightning.PlanCallback(plan)],
        **quiet_options(tmp_path),
    )
    module = example.Regression()
    trainer.fit(module, example.batches())
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, example.batches())
    assert trainer.callbacks[0].run.t == STEPS


def test_a_callback_starts_afresh_with_a_new_trainer(tmp_path):
    controller = tp.schedules.ReduceOnPlateau(0.1, factor=0.5, patience=0, mode="max")
    callback = tp.lightning.PlanCallback(tp.Plan(lr=controller))
    finals = []
    for _ in range(2):
        module = example.Regression()
        trainer = lightning.Trainer(max_steps=4, callbacks=[callback], **quiet_options(tmp_path))
        trainer.fit(module, example.batches(32))
        finals.append(module.layer.weight.detach().clone())
        assert callback.run.t == 4
        assert callback.values["lr"] < 0.1
    assert torch.equal(*finals)


def quiet_options(folder):
    return {
        "default_root_dir": folder,
        "logger": False,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }


class Returning(example.Regression):
    """A module with another answer of ``configure_optimizers``."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.used = []

    def configure_optimizers(self):
        return self.answer(torch.optim.SGD(self.parameters(), lr=0.1))

    def on_before_optimizer_step(self, optimizer):
        self.used.append(optimizer.param_groups[0]["lr"])


def test_the_configure_optimizers_form_uses_the_same_rates(tmp_path):
    only_lr = tp.Plan(horizon=STEPS, lr=plan.knobs["lr"])
    options = {**quiet_options(tmp_path), "enable_checkpointing": True}
    answer = lambda optimizer: tp.lightning.configure_optimizers(only_lr, optimizer)  # noqa: E731
    expected = only_lr["lr"](np.arange(STEPS)).tolist()

    module = Returning(answer)
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = lightning.Trainer(max_steps=STEPS, callbacks=[keep], **options)
    trainer.fit(module, example.batches())
    assert module.used == expected

    resumed = Returning(answer)
    trainer = lightning.Trainer(max_steps=STEPS, **options)
    trainer.fit(resumed, example.batches(), ckpt_path=tmp_path / "step=5.ckpt")
    assert resumed.used == expected[5:]
    assert same(resumed, module)

    accumulated = Returning(answer)
    options["accumulate_grad_batches"] = 4
    lightning.Trainer(max_steps=STEPS, **options).fit(accumulated, example.batches())
    assert accumulated.used == expected


def test_the_configure_optimizers_form_refuses_what_it_cannot_drive():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(()))])
    with pytest.raises(tp.PlanError, match=r"weight_decay: .*PlanCallback"):
        tp.lightning.configure_optimizers(plan, optimizer)


def test_two_writers_of_one_knob_are_refused(tmp_path):
    def answer(optimizer):
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    trainer = lightning.Trainer(
        max_steps=1, callbacks=[tp.lightning.PlanCallback(plan)], **quiet_options(tmp_path)
    )
    with pytest.raises(tp.PlanError, match=r"lr: .*StepLR"):
        trainer.fit(Returning(answer), example.batches())


class Adversaries(lightning.LightningModule):
    """Two optimizers by hand; the second steps every other batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 1) for _ in range(2))
        self.used = ([], [])

    def training_step(self, batch, batch_idx):
        for i, optimizer in enumerate(self.optimizers()):
            if i == 1 and batch_idx % 2:
                continue
            optimizer.zero_grad()
            self.manual_backward(self.layers[i](batch[0]).square().mean())
            optimizer.step()
            self.used[i].append(optimizer.param_groups[0]["lr"])

    def configure_optimizers(self):
        return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in self.layers]


def test_each_of_several_optimizers_has_its_own_plan_and_clock(tmp_path):
    plans = [tp.Plan(horizon=8, lr=tp.schedules.linear(peak)) for peak in (0.5, 0.1)]
    callbacks = [tp.lightning.PlanCallback(plan, optimizer=i) for i, plan in enumerate(plans)]
    module = Adversaries()
    options = {**quiet_options(tmp_path), "max_epochs": 2}
    lightning.Trainer(callbacks=callbacks, **options).fit(module, example.batches())
    assert module.used[0] == plans[0]["lr"](np.arange(8)).tolist()
    assert module.used[1] == plans[1]["lr"](np.arange(4)).tolist()


class Validated(Returning):
    def __init__(self, losses):
        super().__init__(lambda optimizer: optimizer)
        self.losses = losses

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.losses[self.current_epoch])


def test_controllers_hear_each_validation_once_and_are_resumed(tmp_path):
    # Bad after epochs 1 and 3; the sanity check before epoch 0 must not count.
    losses = [1.0, 2.0, 0.5, 0.7, 0.6]
    expected = [0.1, 0.1, 0.05, 0.05, 0.025]

    def fit(epochs, resume=None):
        controller = tp.schedules.ReduceOnPlateau(0.1, signal="val_loss", factor=0.5, patience=0)
        keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, every_n_epochs=1)
        module = Validated(losses)
        options = {**quiet_options(tmp_path), "enable_checkpointing": True}
        trainer = lightning.Trainer(
            max_epochs=epochs,
            callbacks=[keep, tp.lightning.PlanCallback(tp.Plan(lr=controller))],
            **options,
        )
        trainer.fit(module, example.batches(32), example.batches(32), ckpt_path=resume)
        return module.used

    assert fit(5) == expected
    fit(2)
    for epoch in range(4):
        assert fit(5, tmp_path / f"epoch={epoch}.ckpt") == expected[epoch + 1 :]


def test_controllers_hear_the_mean_loss_of_accumulated_batches(tmp_path):
    heard = []

    class Listener:
        def value(self, t):
            return 0.1

        def observe(self, t, **signals):
            heard.append((t, signals["loss"]))

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            assert state == {}

        def plain(self):
            return {"listener": {}}

    class Constant(Returning):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * 0 + batch_idx + 1

    trainer = lightning.Trainer(
        max_epochs=1,
        accumulate_grad_batches=2,
        callbacks=[tp.lightning.PlanCallback(tp.Plan(lr=Listener()))],
        **quiet_options(tmp_path),
    )
    trainer.fit(Constant(lambda optimizer: optimizer), example.batches())
    assert heard == [(1, 1.5), (2, 3.5)]


def test_a_plan_in_tokens_counts_the_batches(tmp_path):
    tokens = tp.Plan(horizon=8 * 4 * 8, unit="tokens", lr=tp.schedules.linear(0.8))
    callback = tp.lightning.PlanCallback(tokens, tokens=lambda batch: batch[0].numel())
    module = Returning(lambda optimizer: optimizer)
    trainer = lightning.Trainer(
        max_epochs=2, accumulate_grad_batches=2, callbacks=[callback], **quiet_options(tmp_path)
    )
    trainer.fit(module, example.batches())
    assert callback.run.clock.tokens == 8 * 32
    assert module.used == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_a_checkpoint_made_without_the_callback_gives_the_clock(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    options = {**quiet_options(tmp_path), "enable_checkpointing": True}
    module = Returning(lambda optimizer: optimizer)
    lightning.Trainer(max_steps=3, callbacks=[keep], **options).fit(module, example.batches())

    only_lr = tp.Plan(horizon=STEPS, lr=plan.knobs["lr"])
    module = Returning(lambda optimizer: optimizer)
    trainer = lightning.Trainer(
        max_steps=6, callbacks=[tp.lightning.PlanCallback(only_lr)], **options
    )
    trainer.fit(module, example.batches(), ckpt_path=tmp_path / "step=3.ckpt")
    assert module.used == only_lr["lr"](np.arange(3, 6)).tolist()


def test_data_side_knobs_are_read_in_the_forward_pass_of_their_update(tmp_path):
    read = []
    masked = tp.Plan(horizon=8, lr=0.1, mask_rate=tp.schedules.linear(0.4, end=0.0))
    callback = tp.lightning.PlanCallback(masked)

    class Masking(Returning):
        def training_step(self, batch, batch_idx):
            read.append(callback.values["mask_rate"])
            return super().training_step(batch, batch_idx)

    trainer = lightning.Trainer(max_steps=4, callbacks=[callback], **quiet_options(tmp_path))
    trainer.fit(Masking(lambda optimizer: optimizer), example.batches())
    assert read == masked["mask_rate"](np.arange(4)).tolist()


def test_an_optimizer_that_does_not_exist_is_named(tmp_path):
    callback = tp.lightning.PlanCallback(plan, optimizer=1)
    trainer = lightning.Trainer(max_steps=1, callbacks=[callback], **quiet_options(tmp_path))
    with pytest.raises(tp.PlanError, match=r"optimizer: the module has 1 optimizer"):
        trainer.fit(example.Regression(), example.batches())


TWO_PROCESSES = """
import lightning, torch, trainplan as tp, with_lightning as example

class Module(example.Regression):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * 0 + batch_idx + 2.0 * self.global_rank

class Listener:
    heard = []
    def value(self, t): return 0.1
    def observe(self, t, **signals): self.heard.append((t, signals["loss"]))
    def state_dict(self): return {}
    def load_state_dict(self, state): pass
    def plain(self): return {"listener": {}}

plan = tp.Plan(horizon=128, unit="samples", lr=tp.schedules.linear(0.8), weight_decay=Listener())
callback = tp.lightning.PlanCallback(plan, samples=lambda batch: len(batch[0]))
used = []
callback.on_before_optimizer_step = lambda *_: used.append(callback.values["lr"])
trainer = lightning.Trainer(
    max_epochs=1, accelerator="cpu", devices=2, strategy="ddp_fork", callbacks=[callback],
    logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    use_distributed_sampler=False,
)
class Done(lightning.Callback):
    def on_train_end(self, trainer, module):
        with open(f"rank{trainer.global_rank}", "w") as file:
            print(callback.run.clock.samples, used, Listener.heard, file=file)
trainer.callbacks.append(Done())
trainer.fit(Module(), example.batches())
"""


def test_all_processes_count_and_hear_the_same(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", TWO_PROCESSES],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"rank{i}").read_text() for i in range(2))
    assert first == second
    heard = [(16 * (t + 1), t + 1.0) for t in range(4)]
    assert first.startswith("64 [0.8, 0.7")
    assert first.strip().endswith(str(heard))


class HeldRegression(example.Regression):
    """A first layer whose steps move its activations, and a matrix of constant norm."""

    def __init__(self):
        super().__init__()
        first = tp.optim.tract_layer(torch.nn.Linear(4, 8), lambda_=0.05)
        self.layer = torch.nn.Sequential(first, torch.nn.Tanh(), torch.nn.Linear(8, 1))
        self.projector = tp.optim.NormProjector(self, lambda name, _: name == "layer.2.weight")

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.projector.param_groups(effective_lr=0.05), lr=0.05)
        tp.optim.drive_lambda(self.layer[0], optimizer)
        self.projector.attach(optimizer)
        return optimizer


HELD = tp.Plan(
    horizon=STEPS,
    lr=tp.schedules.cosine(0.05),
    effective_lr=tp.schedules.constant(0.05),
    tract_lambda=tp.schedules.linear(0.05, end=0.2),
)


def test_a_preconditioned_first_layer_and_held_norms_resume(tmp_path, monkeypatch):
    monkeypatch.setattr(example, "Regression", HeldRegression)
    whole, _ = example.fit(tmp_path / "whole", STEPS, HELD)
    example.fit(tmp_path / "part", 7, HELD)
    resumed, _ = example.fit(
        tmp_path / "part", STEPS, HELD, resume=tmp_path / "part" / "step=7.ckpt"
    )
    assert same(whole, resumed)
    assert whole.layer[0].lambda_ == pytest.approx(HELD.at(STEPS - 1)["tract_lambda"])
    start, end = HeldRegression().layer[2].weight.norm(), whole.layer[2].weight.norm()
    assert end.item() == pytest.approx(start.item(), rel=1e-5)
    moved = HeldRegression().layer[0].weight - whole.layer[0].weight
    assert moved.abs().max() > 1e-3


class SparseRegression(example.Regression):
    """Gradients grow what is active, which needs them before they are masked."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1))
        self.sparse = tp.optim.DynamicSparse(self, 0.5, grow="gradient", every=2)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters())
        self.sparse.attach(optimizer)
        if self.sparse.task is None:
            self.sparse.begin("first", steps=STEPS)
        return optimizer


@pytest.mark.parametrize("accumulate", [1, 2])
def test_sparse_masks_grow_by_gradients_as_in_a_plain_loop(tmp_path, monkeypatch, accumulate):
    monkeypatch.setattr(example, "Regression", SparseRegression)
    module, _ = example.fit(tmp_path, STEPS, accumulate_grad_batches=accumulate)
    loop = plain(plan, accumulate=accumulate)
    assert same(module, loop)
    assert not torch.equal(module.layer[0].weight == 0, SparseRegression().layer[0].weight == 0)
