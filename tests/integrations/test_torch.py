"""A plan drives a PyTorch optimizer, and a run that is stopped and resumed is the same run."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trainplan as tp
from trainplan.errors import PlanError
from trainplan.schedules import ReduceOnPlateau

torch = pytest.importorskip("torch")

HORIZON = 12
LR = tp.schedules.wsd(0.1, warmup=3, decay=4, shape="1-sqrt", end=0.0)
VALUES = [LR.resolve(HORIZON)(t) for t in range(HORIZON + 5)]


def plan(**knobs: Any) -> tp.Plan:
    return tp.Plan(horizon=HORIZON, **{"lr": LR, **knobs})


def parameters(n: int = 2) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(3, generator=generator)) for _ in range(n)]


def gradients(weights: list[Any], step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for weight in weights:
        weight.grad = torch.randn(3, generator=generator)


def update(optimizer: Any, step: int) -> None:
    gradients([p for group in optimizer.param_groups for p in group["params"]], step)
    optimizer.step()


def lrs(optimizer: Any) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def saved_and_loaded(state: Any) -> Any:
    """Through a file that holds plain numbers and tensors only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.5),
    "sgd with momentum": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.5),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.5, fused=True),
    "foreach": lambda p: torch.optim.AdamW(p, lr=0.5, foreach=True),
    "tensor": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.5)),
    "fused tensor": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.5), fused=True),
    "float64 tensor": lambda p: torch.optim.SGD(p, lr=torch.tensor(0.5, dtype=torch.float64)),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.5),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_update_uses_the_value_of_its_step(name: str) -> None:
    optimizer = OPTIMIZERS[name](parameters())
    used = []
    run = tp.torch.attach(plan(), optimizer)
    assert lrs(optimizer) == [0.0]
    optimizer.register_step_pre_hook(lambda o, *_: used.append(lrs(o)[0]))
    for step in range(HORIZON + 5):
        update(optimizer, step)
        assert run.values == {"lr": VALUES[step]}
    assert used == pytest.approx(VALUES, rel=1e-6)
    assert run.t == HORIZON + 5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_weights_are_those_of_setting_the_rate_by_hand(name: str) -> None:
    ours, theirs = parameters(), parameters()
    optimizer, reference = OPTIMIZERS[name](ours), OPTIMIZERS[name](theirs)
    tp.torch.attach(plan(), optimizer)
    for step in range(HORIZON):
        update(optimizer, step)
        for group in reference.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"] = torch.full_like(group["lr"], VALUES[step])
            else:
                group["lr"] = VALUES[step]
        update(reference, step)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("capturable", [False, True])
def test_tensor_rates_are_written_in_place(capturable: bool) -> None:
    """A captured or compiled step reads the tensors that it saw first."""
    groups = [{"params": [p]} for p in parameters()]
    optimizer = torch.optim.AdamW(groups, lr=torch.tensor(0.5), capturable=capturable)
    run = tp.torch.attach(plan(), optimizer)
    tensors = [group["lr"] for group in optimizer.param_groups]
    run.clock.steps = 5  # without an update: a capturable one needs an accelerator
    run.apply()
    assert [float(tensor) for tensor in tensors] == pytest.approx([VALUES[5]] * 2)
    assert all(a is g["lr"] for a, g in zip(tensors, optimizer.param_groups, strict=True))


def test_groups_that_share_one_tensor_keep_their_own_scales() -> None:
    weights = parameters(3)
    rate = torch.tensor(0.5)
    optimizer = torch.optim.AdamW(
        [
            {"params": weights[:1]},
            {"params": weights[1:2], "lr_scale": 0.1},
            {"params": weights[2:], "lr": torch.tensor(1.0)},
        ],
        lr=rate,
    )
    tp.torch.attach(plan(), optimizer)
    for step in range(HORIZON):
        update(optimizer, step)
        assert lrs(optimizer) == pytest.approx([k * VALUES[step] for k in (1, 0.1, 2)], rel=1e-6)
    assert rate.item() == 0.5


def two_groups(weight_decay: float = 0.2) -> Any:
    a, b, c = parameters(3)
    return torch.optim.AdamW(
        [
            {"params": [a]},
            {"params": [b], "lr": 0.05, "weight_decay": 0.0},
            {"params": [c], "lr_scale": 3.0, "weight_decay_scale": 0.5},
        ],
        lr=0.5,
        weight_decay=weight_decay,
    )


@pytest.mark.parametrize("default", [0.2, 0.0])
def test_groups_keep_their_ratio_to_the_default(default: float) -> None:
    optimizer = two_groups(default)
    tp.torch.attach(plan(weight_decay=tp.schedules.linear(0.4)), optimizer)
    for step in range(HORIZON):
        update(optimizer, step)
        assert lrs(optimizer) == pytest.approx([VALUES[step] * k for k in (1, 0.1, 3)])
        decays = [group["weight_decay"] for group in optimizer.param_groups]
        k = 1 - step / HORIZON
        # With a default of 0 nothing tells "never" from "not set yet": only the scale does.
        expected = [0.4 * k, 0.0 if default else 0.4 * k, 0.2 * k]
        assert decays == pytest.approx(expected)


def test_a_group_that_opted_out_of_a_default_of_zero_stays_out() -> None:
    a, b = parameters()
    groups = [{"params": [a], "weight_decay": 0.1}, {"params": [b]}]
    optimizer = torch.optim.SGD(groups, lr=0.5)
    tp.torch.attach(plan(weight_decay=0.3), optimizer)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


def test_betas_are_set_for_every_group() -> None:
    optimizer = two_groups()
    run = tp.torch.attach(plan(betas=(tp.schedules.linear(0.9, 0.5), 0.95)), optimizer)
    for step in range(HORIZON):
        update(optimizer, step)
    assert all(group["betas"] == run.values["betas"] for group in optimizer.param_groups)
    assert run.values["betas"] == (tp.schedules.linear(0.9, 0.5).resolve(HORIZON)(11), 0.95)


def test_tensor_betas_are_filled_in_place() -> None:
    pair = (torch.tensor(0.9), torch.tensor(0.99))
    optimizer = torch.optim.Adam(parameters(), lr=torch.tensor(0.5), betas=pair)
    tp.torch.attach(plan(betas=(0.8, 0.95)), optimizer)
    assert [float(beta) for beta in optimizer.param_groups[0]["betas"]] == pytest.approx(
        [0.8, 0.95]
    )


def test_everything_written_is_a_plain_number() -> None:
    optimizer = two_groups()
    knobs = {"weight_decay": np.float64(0.1), "eps": tp.schedules.step(1e-8, at=[3])}
    tp.torch.attach(plan(betas=(np.float32(0.9), 0.95), **knobs), optimizer)
    update(optimizer, 0)
    saved_and_loaded(optimizer.state_dict())
    for group in optimizer.param_groups:
        assert {type(group[key]) for key in ("lr", "weight_decay", "eps")} == {float}


# Counting


def test_accumulated_micro_batches_are_one_step() -> None:
    optimizer = OPTIMIZERS["sgd"](parameters())
    run = tp.torch.attach(plan(), optimizer)
    for micro_batch in range(12):
        gradients(optimizer.param_groups[0]["params"], micro_batch)
        if micro_batch % 4 == 3:
            optimizer.step()
    assert run.t == 3


@pytest.mark.parametrize("name", ["sgd", "adamw", "fused"])
def test_steps_that_overflow_do_not_count(name: str) -> None:
    weights = parameters()
    optimizer = OPTIMIZERS[name](weights)
    run = tp.torch.attach(plan(), optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    bad = {2, 3, 6}
    expected = 0
    for step in range(9):
        before = [w.detach().clone() for w in weights]
        loss = sum((w * (float("inf") if step in bad else 1.0)).sum() for w in weights)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        expected += step not in bad
        assert run.t == expected
        if step in bad:
            assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))
        else:
            assert run.values["lr"] == VALUES[expected - 1]


@pytest.mark.parametrize("unit", ["tokens", "samples", "epochs"])
def test_plans_can_count_other_units(unit: str) -> None:
    rates = {"steps_per_epoch": 4, "tokens_per_step": 512, "samples_per_step": 8}
    per_step = {"tokens": 512, "samples": 8, "epochs": 0.25}[unit]
    optimizer = OPTIMIZERS["sgd"](parameters())
    lr = tp.schedules.linear(1.0)
    run = tp.torch.attach(tp.Plan(horizon=8 * per_step, unit=unit, lr=lr, **rates), optimizer)
    for step in range(4):
        update(optimizer, step)
        assert run.values["lr"] == 1 - step / 8
    assert run.t == 4 * per_step


def test_tokens_can_be_counted_as_they_come() -> None:
    optimizer = OPTIMIZERS["sgd"](parameters())
    lr = tp.schedules.linear(1.0)
    run = tp.torch.attach(tp.Plan(horizon=1000, unit="tokens", lr=lr), optimizer)
    seen = 0
    for step, tokens in enumerate((100, 50, 300)):
        run.count(tokens=tokens // 2)
        run.count(tokens=tokens // 2)
        update(optimizer, step)
        assert run.values["lr"] == 1 - seen / 1000
        seen += tokens
        assert run.t == seen


# Groups, loading and detaching


def test_a_group_added_later_follows_the_plan() -> None:
    for rate in (0.5, torch.tensor(0.5)):
        a, b, c = parameters(3)
        optimizer = torch.optim.AdamW([a], lr=rate)
        tp.torch.attach(plan(), optimizer)
        update(optimizer, 0)
        optimizer.add_param_group({"params": [b]})
        optimizer.add_param_group({"params": [c], "lr_scale": 0.1})
        for step in range(1, HORIZON):
            update(optimizer, step)
            expected = [VALUES[step] * k for k in (1, 1, 0.1)]
            assert lrs(optimizer) == pytest.approx(expected, rel=1e-6)


def test_loading_an_old_checkpoint_does_not_bring_back_its_rates() -> None:
    optimizer = two_groups()
    run = tp.torch.attach(plan(), optimizer)
    for step in range(5):
        update(optimizer, step)
    old = saved_and_loaded(optimizer.state_dict())
    state = saved_and_loaded(run.state_dict())
    longer = tp.torch.attach(plan().extend(at=5, horizon=1000), fresh := two_groups())
    fresh.load_state_dict(old)
    longer.load_state_dict(state)
    assert lrs(fresh) == pytest.approx([0.1, 0.01, 0.3])
    for step in range(5, 500):
        update(fresh, step)
    assert lrs(fresh) == pytest.approx([0.1, 0.01, 0.3])


def test_scales_come_from_the_code_and_survive_foreign_checkpoints() -> None:
    plain = torch.optim.AdamW([{"params": [p]} for p in parameters(3)], lr=7.0)
    optimizer = two_groups()
    tp.torch.attach(plan(), optimizer)
    optimizer.load_state_dict(plain.state_dict())
    update(optimizer, 0)
    update(optimizer, 1)
    assert lrs(optimizer) == pytest.approx([VALUES[1] * k for k in (1, 0.1, 3)])


def test_attaching_to_a_resumed_optimizer_keeps_the_scales() -> None:
    optimizer = two_groups()
    run = tp.torch.attach(plan(), optimizer)
    for step in range(10):
        update(optimizer, step)
    late = two_groups()
    late.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    again = tp.torch.attach(plan(), late)
    again.load_state_dict(run.state_dict())
    assert lrs(late) == pytest.approx([VALUES[10] * k for k in (1, 0.1, 3)])


def test_detaching_leaves_the_last_values_and_frees_the_knobs() -> None:
    optimizer = OPTIMIZERS["sgd"](parameters())
    run = tp.torch.attach(plan(), optimizer)
    for step in range(5):
        update(optimizer, step)
    run.detach()
    for step in range(3):
        update(optimizer, step)
    assert lrs(optimizer) == [VALUES[4]]
    assert run.t == 5
    tp.torch.attach(plan(), optimizer)


def test_a_copy_of_an_optimizer_is_free() -> None:
    optimizer = OPTIMIZERS["adamw"](parameters())
    run = tp.torch.attach(plan(), optimizer)
    update(optimizer, 0)
    twin = copy.deepcopy(optimizer)
    again = tp.torch.attach(plan(), twin)
    again.load_state_dict(run.state_dict())
    update(twin, 1)
    assert (run.t, again.t) == (1, 2)


# Refusals


def test_unknown_knobs_are_an_error_that_suggests_the_nearest() -> None:
    optimizer = OPTIMIZERS["sgd"](parameters())
    typo = tp.Plan(horizon=5, weight_decai=0.1)
    with pytest.raises(PlanError, match=r"SGD has no hyperparameter.*'weight_decay'"):
        tp.torch.attach(typo, optimizer)
    mixed = plan(mask_rate=0.3)
    assert tp.torch.attach(mixed, optimizer).values["mask_rate"] == 0.3
    with pytest.raises(PlanError, match="mask_rate"):
        tp.torch.attach(mixed, OPTIMIZERS["sgd"](parameters()), others="error")


@pytest.mark.parametrize(
    ("knobs", "place"),
    [
        ({"betas": 0.9}, "betas"),
        ({"betas": (0.9, 0.95, 0.99)}, "betas"),
        ({"weight_decay": (0.1, 0.2)}, "weight_decay"),
    ],
)
def test_values_of_the_wrong_form_are_refused(knobs: dict[str, Any], place: str) -> None:
    with pytest.raises(PlanError, match="the optimizer takes") as caught:
        tp.torch.attach(plan(**knobs), OPTIMIZERS["adamw"](parameters()))
    assert caught.value.place == place


def test_two_plans_cannot_drive_one_knob() -> None:
    optimizer = OPTIMIZERS["sgd"](parameters())
    tp.torch.attach(plan(), optimizer)
    with pytest.raises(PlanError, match=r"already drives.*detach"):
        tp.torch.attach(plan(), optimizer)
    tp.torch.attach(tp.Plan(horizon=5, weight_decay=0.1), optimizer)


def test_epochs_need_to_know_their_steps() -> None:
    with pytest.raises(PlanError, match="steps_per_epoch"):
        tp.torch.attach(tp.Plan(horizon=3, unit="epochs", lr=0.1), OPTIMIZERS["sgd"](parameters()))


def test_a_state_of_another_plan_is_refused() -> None:
    run = tp.torch.attach(plan(), OPTIMIZERS["sgd"](parameters()))
    other = tp.torch.attach(plan(lr=ReduceOnPlateau(0.1)), OPTIMIZERS["sgd"](parameters()))
    with pytest.raises(PlanError, match="not those of the plan"):
        run.load_state_dict(other.state_dict())
    for state in ({}, None, {"clock": {}, "controllers": {}}, {"clock": 3, "controllers": {}}):
        with pytest.raises(PlanError, match="state"):
            run.load_state_dict(state)  # type: ignore[arg-type]


# Controllers


def test_a_controller_hears_the_run() -> None:
    optimizer = OPTIMIZERS["sgd"](parameters())
    run = tp.torch.attach(plan(lr=ReduceOnPlateau(0.1, factor=0.5, patience=0)), optimizer)
    for loss, lr in [(3.0, 0.1), (2.0, 0.1), (2.0, 0.05), (2.0, 0.025)]:
        update(optimizer, 0)
        run.observe(loss=loss, accuracy=0.5)
        assert lrs(optimizer) == [lr]


def test_a_plan_that_is_read_again_has_learned_nothing() -> None:
    one = plan(lr=ReduceOnPlateau(0.1, factor=0.5, patience=0))
    first = tp.torch.attach(one, OPTIMIZERS["sgd"](parameters()))
    for _ in range(3):
        first.observe(loss=1.0)
    another = tp.Plan.from_dict(one.to_dict())
    second = tp.torch.attach(another, OPTIMIZERS["sgd"](parameters()))
    assert (first.values["lr"], second.values["lr"]) == (0.025, 0.1)


# Resuming

KINDS = ["sgd with momentum", "adamw", "fused", "tensor", "foreach"]
PLANS = {
    "schedules": lambda: plan(weight_decay=tp.schedules.linear(0.1), mask_rate=0.3),
    "controller": lambda: plan(weight_decay=ReduceOnPlateau(0.1, factor=0.5, patience=1)),
    "tokens": lambda: tp.Plan(
        horizon=1000, unit="tokens", lr=tp.schedules.cosine(0.1, warmup="10%")
    ),
}


class Training:
    """All that a training script builds: weights, optimizer, run."""

    def __init__(
        self, kind: str, make: Callable[[], tp.Plan], *, attach_late: bool = False
    ) -> None:
        self.weights = parameters()
        groups = [
            {"params": self.weights[:1]},
            {"params": self.weights[1:], "lr_scale": 0.5},
        ]
        self.optimizer = OPTIMIZERS[kind](groups)
        self.make = make
        self.run: Any = None if attach_late else tp.torch.attach(make(), self.optimizer)

    def steps(self, begin: int, end: int) -> list[Any]:
        used = []
        for step in range(begin, end):
            self.run.count(tokens=60 + step)
            update(self.optimizer, step)
            used.append((dict(self.run.values), lrs(self.optimizer)))
            self.run.observe(loss=1.0 / (1 + step // 3))
        return used

    def save(self) -> dict[str, Any]:
        state = {
            "weights": [w.detach() for w in self.weights],
            "optimizer": self.optimizer.state_dict(),
            "run": self.run.state_dict(),
        }
        return saved_and_loaded(state)

    def load(self, state: dict[str, Any], order: tuple[str, ...]) -> None:
        for part in order:
            if part == "weights":
                with torch.no_grad():
                    for w, old in zip(self.weights, state["weights"], strict=True):
                        w.copy_(old)
            elif part == "optimizer":
                self.optimizer.load_state_dict(state["optimizer"])
            else:
                if self.run is None:
                    self.run = tp.torch.attach(self.make(), self.optimizer)
                self.run.load_state_dict(state["run"])


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    name=st.sampled_from(sorted(PLANS)),
    stop=st.integers(0, HORIZON),
    order=st.permutations(["weights", "optimizer", "run"]),
    attach_late=st.booleans(),
)
def test_resuming_at_any_step_in_any_order_changes_nothing(
    kind: str, name: str, stop: int, order: list[str], attach_late: bool
) -> None:
    whole = Training(kind, PLANS[name])
    expected = whole.steps(0, HORIZON + 3)
    first = Training(kind, PLANS[name])
    used = first.steps(0, stop)
    second = Training(kind, PLANS[name], attach_late=attach_late)
    second.load(first.save(), tuple(order))
    used += second.steps(stop, HORIZON + 3)
    assert used == expected
    assert all(torch.equal(a, b) for a, b in zip(second.weights, whole.weights, strict=True))


def test_the_state_holds_the_clock_and_the_controllers_only() -> None:
    training = Training("adamw", PLANS["controller"])
    training.steps(0, 5)
    assert training.run.state_dict() == {
        "clock": {"steps": 5, "tokens": 310, "samples": 0},
        "controllers": {
            "weight_decay": {"value": 0.05, "best": 0.5, "bad": 1, "cooling": 0},
        },
    }


# As a scheduler


def scheduled(groups: Any = None, **changes: Any) -> tuple[Any, Any]:
    optimizer = torch.optim.SGD(groups or parameters(), lr=0.5, momentum=0.9)
    return optimizer, tp.torch.as_lr_scheduler(plan(**changes), optimizer)


def advance(optimizer: Any, scheduler: Any, begin: int, end: int) -> list[list[float]]:
    used = []
    for step in range(begin, end):
        used.append(lrs(optimizer))
        update(optimizer, step)
        scheduler.step()
    return used


def test_it_is_a_genuine_scheduler_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer, scheduler = scheduled()
        assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
        assert scheduler.get_last_lr() == [0.0]
        used = advance(optimizer, scheduler, 0, HORIZON + 3)
    assert [row[0] for row in used] == VALUES[: HORIZON + 3]
    assert scheduler.get_last_lr() == [VALUES[HORIZON + 3]]
    assert scheduler.last_epoch == HORIZON + 3


def test_the_scheduler_state_is_the_step_count() -> None:
    optimizer, scheduler = scheduled()
    advance(optimizer, scheduler, 0, 4)
    assert saved_and_loaded(scheduler.state_dict()) == {"last_epoch": 4}


def test_the_scheduler_keeps_scales_and_tensors() -> None:
    for rate in (0.5, torch.tensor(0.5)):
        a, b = parameters()
        groups = [{"params": [a]}, {"params": [b], "lr_scale": 0.1}]
        optimizer = torch.optim.AdamW(groups, lr=rate)
        scheduler = tp.torch.as_lr_scheduler(plan(), optimizer)
        for step in range(HORIZON):
            expected = [VALUES[step], 0.1 * VALUES[step]]
            assert lrs(optimizer) == pytest.approx(expected, rel=1e-6)
            update(optimizer, step)
            scheduler.step()


ORDERS = [("optimizer", "scheduler"), ("scheduler", "optimizer")]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stop", [0, 1, 5, 9, 12])
def test_the_scheduler_resumes_after_loading_both_in_any_order(
    order: tuple[str, ...], stop: int
) -> None:
    optimizer, scheduler = scheduled()
    advance(optimizer, scheduler, 0, stop)
    parts = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    state = saved_and_loaded(parts)
    fresh, again = scheduled()
    for part in order:
        (fresh if part == "optimizer" else again).load_state_dict(state[part])
    used = advance(fresh, again, stop, HORIZON)
    assert [row[0] for row in used] == VALUES[stop:HORIZON]


@pytest.mark.parametrize("stop", [1, 5, 9])
def test_loading_the_scheduler_alone_is_right_from_the_first_step(stop: int) -> None:
    optimizer, scheduler = scheduled()
    advance(optimizer, scheduler, 0, stop)
    fresh, again = scheduled()
    again.load_state_dict(scheduler.state_dict())
    assert [row[0] for row in advance(fresh, again, stop, HORIZON)] == VALUES[stop:HORIZON]


@pytest.mark.parametrize("stop", [1, 5, 9])
def test_the_scheduler_can_be_built_after_the_optimizer_was_loaded(stop: int) -> None:
    a, b = parameters()
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.05}], lr=0.5)
    scheduler = tp.torch.as_lr_scheduler(plan(), optimizer)
    advance(optimizer, scheduler, 0, stop)
    late = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.05}], lr=0.5)
    late.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    again = tp.torch.as_lr_scheduler(plan(), late)
    again.load_state_dict(saved_and_loaded(scheduler.state_dict()))
    used = advance(late, again, stop, HORIZON)
    expected = [(VALUES[t], 0.1 * VALUES[t]) for t in range(stop, HORIZON)]
    np.testing.assert_allclose(used, expected, rtol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_an_extended_plan_takes_effect_at_once(order: tuple[str, ...]) -> None:
    optimizer, scheduler = scheduled()
    advance(optimizer, scheduler, 0, 8)  # the next value of the old plan begins its decay
    fresh = torch.optim.SGD(parameters(), lr=0.5, momentum=0.9)
    longer = tp.torch.as_lr_scheduler(plan().extend(at=8, horizon=100), fresh)
    for part in order:
        if part == "optimizer":
            fresh.load_state_dict(saved_and_loaded(optimizer.state_dict()))
        else:
            longer.load_state_dict(saved_and_loaded(scheduler.state_dict()))
    used = advance(fresh, longer, 8, 100)
    assert [row[0] for row in used[:88]] == [0.1] * 88


def test_a_scheduler_needs_steps_and_a_schedule() -> None:
    optimizer = OPTIMIZERS["sgd"](parameters())
    with pytest.raises(PlanError, match="counts steps"):
        tp.torch.as_lr_scheduler(plan().replace(unit="tokens"), optimizer)
    with pytest.raises(PlanError, match="no schedule lr"):
        tp.torch.as_lr_scheduler(tp.Plan(horizon=3, weight_decay=0.1), optimizer)
    with pytest.raises(PlanError, match="no schedule lr"):
        tp.torch.as_lr_scheduler(plan(lr=ReduceOnPlateau(0.1)), optimizer)
