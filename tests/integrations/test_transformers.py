"""Transformers' Trainer follows a plan, and a resumed run is the run that was never interrupted."""

import importlib.util
import json
import os
import warnings
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import trainplan as tp  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
STEPS = 12


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = load("with_transformers")
plan = example.plan


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return folder, example.fit(folder, STEPS)


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def logged(trainer, name):
    return {row["step"]: row[name] for row in trainer.state.log_history if name in row}


def used(plan, name="lr", steps=STEPS):
    return {t + 1: plan.at(t)[name] for t in range(steps)}


def plain(trainer, plan, steps=STEPS, *, attach):
    """The same training in a loop of its own: its batches, and Trainer's groups of parameters."""
    model = example.model()
    decayed = set(trainer.get_decay_parameter_names(model))
    groups = [
        {"params": [p for n, p in model.named_parameters() if (n in decayed) is flag]}
        for flag in (True, False)
    ]
    optimizer = torch.optim.AdamW([groups[0], groups[1] | {"weight_decay": 0.0}], fused=True)
    run = tp.torch.attach(plan, optimizer) if attach else None
    batches = [batch for epoch in range(2) for batch in in_order(trainer, epoch)]
    for t in range(steps):
        if run is None:
            for group, share in zip(optimizer.param_groups, (1.0, 0.0), strict=True):
                now = plan.at(t)
                group.update(now, weight_decay=now["weight_decay"] * share)
        # The mean over the tokens as this version of Trainer counts them.
        (batch,), items = trainer.get_batch_samples(iter([batches[t]]), 1, torch.device("cpu"))
        model(**batch, num_items_in_batch=items).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


def in_sequence(trainer, dataset=None):
    return torch.utils.data.SequentialSampler(trainer.train_dataset)


def in_order(trainer, epoch):
    loader = trainer.get_train_dataloader()
    loader.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize("attach", [True, False], ids=["attached", "assigned by hand"])
def test_training_equals_plain_pytorch(monkeypatch, tmp_path, attach):
    monkeypatch.setattr(transformers.Trainer, "_get_train_sampler", in_sequence)
    trainer = example.fit(tmp_path, STEPS)
    assert same(trainer.model, plain(trainer, plan, attach=attach))


@pytest.mark.parametrize("step", range(1, STEPS))
def test_resuming_at_any_step_changes_nothing(uninterrupted, tmp_path, step):
    folder, trainer = uninterrupted
    resumed = example.fit(tmp_path, STEPS, resume=folder / f"checkpoint-{step}", save_strategy="no")
    assert resumed.state.global_step == STEPS
    assert same(resumed.model, trainer.model)
    for name in ("loss", "learning_rate", "plan/weight_decay"):
        assert logged(resumed, name) == logged(trainer, name)


def test_the_logged_values_are_the_ones_used(uninterrupted):
    _, trainer = uninterrupted
    assert logged(trainer, "learning_rate") == used(plan)
    assert logged(trainer, "plan/weight_decay") == used(plan, "weight_decay")
    assert logged(trainer, "plan/betas/1") == dict.fromkeys(range(1, STEPS + 1), 0.95)


def test_groups_without_weight_decay_keep_none(tmp_path):
    for given in (0.0, 0.3):
        trainer = example.fit(tmp_path, 2, weight_decay=given, save_strategy="no")
        values = [group["weight_decay"] for group in trainer.optimizer.param_groups]
        assert values == [plan.at(1)["weight_decay"], 0.0]


def test_accumulated_batches_make_one_update(tmp_path):
    trainer = example.fit(tmp_path, 6, gradient_accumulation_steps=2)
    assert logged(trainer, "learning_rate") == used(plan, steps=6)
    resumed = example.fit(
        tmp_path / "resumed", 6, resume=tmp_path / "checkpoint-3", gradient_accumulation_steps=2
    )
    assert same(resumed.model, trainer.model)


# Longer runs


def test_a_longer_run_extends_the_plan_where_its_past_allows_it(uninterrupted, tmp_path):
    folder, _ = uninterrupted
    longer = example.fit(tmp_path, 20, resume=folder / "checkpoint-6")
    expected = plan.extend(at=6, horizon=20)
    assert logged(longer, "learning_rate") == used(expected, steps=20)
    assert expected.at(14)["lr"] == plan.at(8)["lr"]  # still at its peak, where the old one decayed

    again = example.fit(tmp_path / "again", 20, resume=tmp_path / "checkpoint-11")
    assert same(again.model, longer.model)
    assert logged(again, "learning_rate") == used(expected, steps=20)


def test_a_longer_run_is_refused_where_its_past_would_change(uninterrupted, tmp_path):
    folder, _ = uninterrupted
    with pytest.raises(tp.PlanError, match=r"lr: the past would change.*at step 10.*branch"):
        example.fit(tmp_path, 20, resume=folder / "checkpoint-11")


def test_a_plan_with_another_past_is_refused(uninterrupted, tmp_path):
    folder, _ = uninterrupted
    other = plan.replace(horizon=24)  # the same words, but a warm-up of six steps
    with pytest.raises(tp.PlanError, match=r"lr: the past would change.*began with"):
        example.fit(tmp_path, 24, other, resume=folder / "checkpoint-5")


def test_a_branch_of_the_plan_goes_on_from_a_checkpoint(uninterrupted, tmp_path):
    folder, _ = uninterrupted
    branch = plan.branch(at=6, decay=4)
    trainer = example.fit(tmp_path, 10, branch, resume=folder / "checkpoint-6")
    assert logged(trainer, "learning_rate") == used(branch, steps=10)


def test_a_checkpoint_that_was_made_without_a_plan_is_taken_up_at_its_step(tmp_path):
    args = example.arguments(tmp_path, 6, learning_rate=0.3, weight_decay=0.2)
    trainer = transformers.Trainer(example.model(), args, train_dataset=example.sentences())
    trainer.train()
    resumed = example.fit(tmp_path / "resumed", STEPS, resume=tmp_path / "checkpoint-4")
    rates = logged(resumed, "learning_rate")
    assert {step: rates[step] for step in range(5, 13)} == {
        t + 1: plan.at(t)["lr"] for t in range(4, 12)
    }
    assert [g["weight_decay"] for g in resumed.optimizer.param_groups] == [0.01, 0.0]


def test_training_again_begins_the_plan_again(tmp_path):
    trainer = example.fit(tmp_path, 3, save_strategy="no")
    trainer.train()
    assert logged(trainer, "learning_rate") == used(plan, steps=3)


# The form with a scheduler

only_rate = tp.Plan(horizon=STEPS, lr=plan.knobs["lr"])


def test_a_scheduler_resumes_at_any_step(tmp_path):
    whole = example.fit_with_scheduler(tmp_path, STEPS, only_rate)
    assert logged(whole, "learning_rate") == used(only_rate)
    for step in (1, 6, 10):
        resumed = example.fit_with_scheduler(
            tmp_path / str(step), STEPS, only_rate, resume=tmp_path / f"checkpoint-{step}"
        )
        assert same(resumed.model, whole.model)
        assert logged(resumed, "learning_rate") == used(only_rate)


def test_a_scheduler_follows_an_extended_plan_at_once_and_refuses_another_past(tmp_path):
    example.fit_with_scheduler(tmp_path, STEPS, only_rate)
    longer = only_rate.extend(at=6, horizon=20)
    resumed = example.fit_with_scheduler(
        tmp_path / "longer", 20, longer, resume=tmp_path / "checkpoint-6"
    )
    assert logged(resumed, "learning_rate") == used(longer, steps=20)
    with pytest.raises(tp.PlanError, match="the past would change"):
        example.fit_with_scheduler(
            tmp_path, 20, only_rate.replace(horizon=20), resume=tmp_path / "checkpoint-6"
        )


def test_a_scheduler_refuses_knobs_that_it_would_not_drive():
    optimizer = torch.optim.AdamW(example.model().parameters())
    with pytest.raises(tp.PlanError, match=r"weight_decay.*PlanCallback"):
        tp.transformers.plan_scheduler(plan, optimizer)


def test_a_scheduler_of_another_optimizer_raises_at_its_first_step(tmp_path):
    network = example.model()
    optimizer = torch.optim.AdamW(network.parameters())
    trainer = transformers.Trainer(
        network,
        example.arguments(tmp_path, 3),
        train_dataset=example.sentences(),
        optimizers=(None, tp.transformers.plan_scheduler(only_rate, optimizer)),
    )
    with pytest.raises(tp.PlanError, match="makes no steps"):
        trainer.train()


# One writer


def trainer_with(folder, *, plan=plan, callbacks=(), optimizer=False, scheduler=None, **options):
    network = example.model()
    own = torch.optim.AdamW(network.parameters()) if optimizer or scheduler else None
    return transformers.Trainer(
        network,
        example.arguments(folder, options.pop("steps", 4), save_strategy="no", **options),
        train_dataset=example.sentences(),
        optimizers=(own, scheduler(own) if scheduler else None),
        callbacks=[tp.transformers.PlanCallback(plan), *callbacks],
    )


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 2),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 1.0),
        lambda o: tp.transformers.plan_scheduler(only_rate, o),
    ],
)
def test_a_scheduler_beside_the_plan_is_refused(tmp_path, scheduler):
    with pytest.raises(tp.PlanError, match="drives the learning rate too"):
        trainer_with(tmp_path, scheduler=scheduler).train()


def test_a_scheduler_beside_a_plan_of_other_knobs_is_welcome(tmp_path):
    other = tp.Plan(horizon=4, weight_decay=tp.schedules.linear(0.1))
    trainer = trainer_with(
        tmp_path, plan=other, scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5)
    )
    trainer.train()
    assert logged(trainer, "learning_rate") == {1: 1e-3, 2: 1e-3, 3: 5e-4, 4: 5e-4}
    assert logged(trainer, "plan/weight_decay") == used(other, "weight_decay", 4)


class Meddler(transformers.TrainerCallback):
    def __init__(self, event, knob, value):
        self.knob, self.value = knob, value
        setattr(self, event, self.meddle)

    def meddle(self, args, state, control, optimizer=None, **kwargs):
        optimizer.param_groups[0][self.knob] = self.value


@pytest.mark.parametrize("event", ["on_step_begin", "on_step_end"])
@pytest.mark.parametrize(("knob", "value"), [("lr", 0.5), ("betas", (0.5, 0.5))])
def test_a_second_writer_is_found(tmp_path, event, knob, value):
    with pytest.raises(tp.PlanError, match=f"something beside the plan has changed {knob}"):
        trainer_with(tmp_path, callbacks=[Meddler(event, knob, value)]).train()


def test_two_plans_are_refused(tmp_path):
    second = tp.transformers.PlanCallback(tp.Plan(horizon=4, eps=1e-6))
    with pytest.raises(tp.PlanError, match="has a plan already"):
        trainer_with(tmp_path, callbacks=[second]).train()


def test_one_of_trainers_own_schedulers_changes_neither_training_nor_log(tmp_path, uninterrupted):
    _, whole = uninterrupted
    trainer = example.fit(
        tmp_path, STEPS, save_strategy="no", lr_scheduler_type="cosine", warmup_steps=3
    )
    assert same(trainer.model, whole.model)
    assert logged(trainer, "learning_rate") == used(plan)


# What people get wrong


def findings(tmp_path, plan=plan, **options):
    args = example.arguments(tmp_path, STEPS, **options)
    return {finding.place: finding for finding in tp.transformers.check(plan, args)}


def test_arguments_that_fit_the_plan_are_not_criticized(tmp_path):
    assert not findings(tmp_path)


def test_arguments_that_do_not_fit_the_plan_are(tmp_path):
    assert set(findings(tmp_path, lr_scheduler_type="linear", warmup_steps=5)) == {
        "lr_scheduler_type",
        "warmup_steps",
    }
    assert set(findings(tmp_path, plan.replace(label_smoothing_factor=0.1))) == {
        "label_smoothing_factor"
    }
    listens = tp.Plan(lr=tp.schedules.ReduceOnPlateau(0.1))
    assert set(findings(tmp_path, listens, save_steps=3, logging_steps=2)) == {"save_steps"}
    assert not findings(tmp_path, listens, save_steps=4, logging_steps=2)


def test_a_plan_in_tokens_needs_somebody_who_counts_them(tmp_path):
    tokens = tp.Plan(horizon=96, unit="tokens", lr=tp.schedules.linear(0.1))
    with pytest.raises(tp.PlanError, match="nobody counts them"):
        trainer_with(tmp_path, plan=tokens).train()
    trainer = trainer_with(tmp_path, plan=tokens, include_num_input_tokens_seen="all")
    trainer.train()
    assert logged(trainer, "learning_rate") == {
        step: tokens.at(32 * (step - 1))["lr"] for step in range(1, 5)
    }


def test_a_knob_that_nobody_has_is_an_error_if_asked_for(tmp_path):
    odd = plan.replace(weight_dekay=0.1)
    callback = tp.transformers.PlanCallback(odd, others="error")
    trainer = transformers.Trainer(
        example.model(),
        example.arguments(tmp_path, 2),
        train_dataset=example.sentences(),
        callbacks=[callback],
    )
    with pytest.raises(tp.PlanError, match="Did you mean 'weight_decay'"):
        trainer.train()


def test_the_lengths_of_run_and_plan_are_compared(tmp_path):
    with pytest.warns(UserWarning, match="the run lasts 13 steps, the plan 12: it holds"):
        example.fit(tmp_path, 13, save_strategy="no")


# Controllers


def listening():
    lr = tp.schedules.ReduceOnPlateau(0.1, factor=0.5, patience=0, threshold=0.02)
    return tp.Plan(lr=lr, weight_decay=0.1)


def test_a_controller_hears_each_logged_loss_once_and_resumes_at_any_step(tmp_path):
    whole = example.fit(tmp_path, 8, listening())
    twin, expected = listening().controllers["lr"], {}
    for step, loss in logged(whole, "loss").items():
        expected[step] = twin.value(step)
        twin.observe(step, loss=loss)
    assert logged(whole, "learning_rate") == expected
    assert len(set(expected.values())) > 2
    for step in range(1, 8):
        resumed = example.fit(
            tmp_path / str(step),
            8,
            listening(),
            resume=tmp_path / f"checkpoint-{step}",
            save_strategy="no",
        )
        assert logged(resumed, "learning_rate") == expected
        assert same(resumed.model, whole.model)


def test_a_controller_hears_evaluations(tmp_path):
    controller = tp.schedules.ReduceOnPlateau(0.1, signal="eval_loss", factor=0.5, patience=0)
    trainer = transformers.Trainer(
        example.model(),
        example.arguments(tmp_path, 6, eval_strategy="steps", eval_steps=2, save_strategy="no"),
        train_dataset=example.sentences(),
        eval_dataset=example.sentences(8),
        callbacks=[tp.transformers.PlanCallback(tp.Plan(lr=controller))],
    )
    trainer.train()
    twin, rates = tp.schedules.ReduceOnPlateau(**vars_of(controller)), {}
    evaluations = logged(trainer, "eval_loss")
    for step in range(1, 7):
        rates[step] = twin.value(step)
        if step in evaluations:
            twin.observe(step, eval_loss=evaluations[step])
    assert set(evaluations) == {2, 4, 6}
    assert logged(trainer, "learning_rate") == rates
    assert rates[6] < 0.1


def vars_of(controller):
    ((_, settings),) = controller.plain().items()
    return settings


def test_checkpoints_hold_plain_data(uninterrupted):
    folder, _ = uninterrupted
    state = json.loads((folder / "checkpoint-5" / "trainer_state.json").read_text())
    saved = state["stateful_callbacks"]["trainplan"]
    assert saved["run"]["clock"]["steps"] == 5
    assert tp.Plan.from_dict(saved["given"]) == plan
    torch.load(folder / "checkpoint-5" / "optimizer.pt", weights_only=True)


def test_restoring_callbacks_from_the_checkpoint_keeps_ours(uninterrupted, tmp_path):
    folder, trainer = uninterrupted
    resumed = example.fit(
        tmp_path,
        STEPS,
        resume=folder / "checkpoint-5",
        restore_callback_states_from_checkpoint=True,
    )
    assert same(resumed.model, trainer.model)


def test_trackers_see_the_plan_when_it_is_attached(tmp_path):
    seen = []

    class Tracker(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(dict(logs))

    trainer = transformers.Trainer(
        example.model(),
        example.arguments(tmp_path, 2, save_strategy="no"),
        train_dataset=example.sentences(),
        callbacks=[Tracker()],
    )
    tp.transformers.attach(plan, trainer)
    trainer.train()
    assert [row["plan/weight_decay"] for row in seen if "loss" in row] == [
        plan.at(t)["weight_decay"] for t in range(2)
    ]
