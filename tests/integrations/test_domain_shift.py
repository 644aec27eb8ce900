"""A run between two domains goes on with its teacher, its head's rate and its weight."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("lightning")
pytest.importorskip("torchdata")

import with_domain_shift as example  # noqa: E402


def test_a_resumed_lightning_run_is_the_uninterrupted_one(tmp_path):
    whole = example.fit(tmp_path)
    t = np.arange(example.plan.horizon)
    rates = np.stack([example.plan["lr"](t), example.plan["head_lr"](t)], axis=1)
    assert whole.used == [tuple(row) for row in rates.tolist()]
    assert int(whole.teacher.steps) == example.plan.horizon
    for step in (7, 10):  # inside an epoch, and at the end of one
        resumed = example.fit(tmp_path / "resumed", resume=tmp_path / f"step={step}.ckpt")
        assert resumed.used == whole.used[step:]
        pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_the_teacher_follows_epoch_by_epoch(tmp_path):
    whole = example.fit(tmp_path)
    expected = example.Transfer().student.state_dict()
    for epoch in range(1, example.EPOCHS + 1):
        saved = torch.load(tmp_path / f"step={epoch * example.STEPS}.ckpt", weights_only=True)
        student = {
            name.removeprefix("student."): x
            for name, x in saved["state_dict"].items()
            if name.startswith("student.")
        }
        expected = {name: 0.99 * x + 0.01 * student[name] for name, x in expected.items()}
    for name, x in whole.teacher.module.state_dict().items():
        torch.testing.assert_close(x, expected[name])
