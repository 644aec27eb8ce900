"""The loop of the PyTorch how-to page: what the page says is what happens."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pytorch as example  # noqa: E402

import trainplan as tp  # noqa: E402

STEPS = 12
plan = example.plan


def train(training, steps):
    used = []
    for _ in range(steps):
        training.update()
        used.append([(g["lr"], g["weight_decay"]) for g in training.optimizer.param_groups])
    return used


def test_every_group_uses_the_plan_and_keeps_its_own_scale():
    used = train(example.Training(), STEPS)
    lr, decay = (plan[name](np.arange(STEPS)) for name in ("lr", "weight_decay"))
    assert [first for first, _ in used] == list(zip(lr * 0.1, decay, strict=True))
    assert [last for _, last in used] == [(rate, 0.0) for rate in lr]


@pytest.mark.parametrize("step", range(1, STEPS))
def test_resuming_at_any_step_changes_nothing(tmp_path, step):
    whole, first, second = (example.Training() for _ in range(3))
    used = train(whole, STEPS)
    train(first, step)
    first.save(tmp_path / "checkpoint.pt")
    second.load(tmp_path / "checkpoint.pt")
    assert train(second, STEPS - step) == used[step:]
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_scheduler_gives_the_same_rates():
    assert example.with_a_scheduler(STEPS) == plan["lr"](np.arange(STEPS)).tolist()


def test_an_extended_plan_continues_from_a_checkpoint(tmp_path):
    trunk = tp.Plan(horizon=10, lr=tp.schedules.wsd(0.1, warmup=2, decay=2), noise=0.0)
    training = example.Training(trunk)
    train(training, 6)
    training.save(tmp_path / "checkpoint.pt")
    longer = trunk.extend(at=6, horizon=20)
    training = example.Training(longer)
    training.load(tmp_path / "checkpoint.pt")
    used = train(training, 14)
    assert [last[0] for _, last in used] == longer["lr"](np.arange(6, 20)).tolist()


def test_tokens_count_when_their_update_is_done():
    tokens = tp.Plan(horizon=100, unit="tokens", lr=tp.schedules.linear(1.0), noise=0.0)
    training = example.Training(tokens)
    used = []
    for size in (10, 30, 50):
        for half in range(2):
            training.run.count(tokens=size // 2)
            assert training.run.t == sum((10, 30, 50)[: len(used)]), half
        used += train(training, 1)
    assert [last[0] for _, last in used] == pytest.approx([1.0, 0.9, 0.6])
    assert training.run.t == 90
