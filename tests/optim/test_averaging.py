"""Averages of checkpoints are what their weights say, in float32, and survive a resume."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from trainplan import PlanError  # noqa: E402
from trainplan.optim import CheckpointAverager, averaging_weights  # noqa: E402
from trainplan.optim.averaging import KINDS  # noqa: E402

WITHOUT_WEIGHTS = [kind for kind in KINDS if kind != "wma"]


@given(st.sampled_from(WITHOUT_WEIGHTS), st.integers(1, 40), st.floats(0.01, 1.0))
def test_weights_make_one(kind, n, alpha):
    weights = averaging_weights(kind, n, alpha=alpha)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()


def test_the_literal_ema_weighs_the_oldest_checkpoint_most():
    weights = averaging_weights("ema", 6)
    assert weights.argmax() == 0
    assert weights.round(3).tolist() == [0.328, 0.082, 0.102, 0.128, 0.16, 0.2]
    normalised = averaging_weights("normalised_ema", 6)
    assert normalised.argmax() == 5
    assert normalised[[0, -1]].round(3).tolist() == [0.089, 0.271]


@given(st.integers(1, 8), st.floats(0.01, 1.0))
def test_the_ema_is_its_recursion(n, alpha):
    values = np.random.default_rng(n).standard_normal(n)
    mean = values[0]
    for value in values[1:]:
        mean = alpha * value + (1 - alpha) * mean
    assert averaging_weights("ema", n, alpha=alpha) @ values == pytest.approx(mean)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_last_n_checkpoints_count(kind):
    weights = [1, 2, 3] if kind == "wma" else None
    averager = CheckpointAverager(kind, 3, weights=weights)
    tensors = [torch.randn(4, dtype=torch.float64) for _ in range(7)]
    for tensor in tensors:
        averager.push({"w": tensor})
    expected = averaging_weights(kind, 3, weights=weights) @ torch.stack(tensors[-3:]).numpy()
    assert averager.result()["w"].numpy() == pytest.approx(expected)
    assert len(averager) == 3


def test_a_checkpoint_is_a_copy():
    model = torch.nn.Linear(2, 1)
    averager = CheckpointAverager("sma", 2)
    averager.push(model.state_dict())
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    averager.push(model.state_dict())
    assert torch.allclose(averager.result()["weight"], before + 0.5)
    model.load_state_dict(averager.result())


def test_small_types_are_averaged_in_float32():
    averager = CheckpointAverager("sma", 256)
    for _ in range(256):
        averager.push({"w": torch.tensor([1.0078125], dtype=torch.bfloat16)})
    average = averager.result()["w"]
    assert average.dtype == torch.float32
    assert average.item() == pytest.approx(1.0078125, rel=1e-6)


def test_counters_are_those_of_the_newest_checkpoint():
    norm = torch.nn.BatchNorm1d(3)
    averager = CheckpointAverager("sma", 2)
    for _ in range(2):
        norm(torch.randn(8, 3))
        averager.push(norm.state_dict())
    assert averager.result()["num_batches_tracked"].item() == 2


def test_a_few_checkpoints_are_averaged_too():
    averager = CheckpointAverager("wma", 3, weights=[1, 2, 6])
    averager.push({"w": torch.tensor([1.0])})
    averager.push({"w": torch.tensor([3.0])})
    assert averager.result()["w"].item() == pytest.approx((2 * 1 + 6 * 3) / 8)


def test_resuming_at_any_checkpoint_changes_nothing():
    states = [{"w": torch.randn(3), "n": torch.tensor(i)} for i in range(6)]
    whole = CheckpointAverager("ema", 4)
    for state in states:
        whole.push(state)
    for stop in range(7):
        first = CheckpointAverager("ema", 4)
        for state in states[:stop]:
            first.push(state)
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second = CheckpointAverager("ema", 4)
        second.load_state_dict(torch.load(file, weights_only=True))
        for state in states[stop:]:
            second.push(state)
        assert all(torch.equal(second.result()[name], t) for name, t in whole.result().items())


def test_averaging_takes_the_noise_out_of_a_constant_rate():
    random = torch.Generator().manual_seed(0)
    weight, averager = torch.tensor([5.0]), CheckpointAverager("sma", 10)
    last, average = [], []
    for step in range(4000):
        weight = weight - 0.5 * (weight + torch.randn(1, generator=random))
        if step % 10 == 0 and step > 100:
            averager.push({"w": weight})
            last.append(weight.item() ** 2)
            average.append(averager.result()["w"].item() ** 2)
    assert np.mean(average) < 0.3 * np.mean(last)


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda: CheckpointAverager("mean"), "kind"),
        (lambda: CheckpointAverager("sma", 0), "n"),
        (lambda: CheckpointAverager("ema", alpha=0), "alpha"),
        (lambda: CheckpointAverager("wma"), "weights"),
        (lambda: CheckpointAverager("sma", 2, weights=[1, 2]), "weights"),
        (lambda: CheckpointAverager("wma", 3, weights=[1, 2]), "weights"),
        (lambda: CheckpointAverager("wma", 2, weights=[-1, 2]), "weights"),
        (lambda: _pushed({"a": torch.ones(1)}, {"b": torch.ones(1)}), "state"),
        (lambda: _pushed({"a": torch.ones(1)}, {"a": torch.ones(2)}), "state['a']"),
        (lambda: CheckpointAverager().load_state_dict({"kind": "ema"}), "kind"),
    ],
)
def test_bad_input_is_named(call, place):
    with pytest.raises(PlanError) as caught:
        call()
    assert caught.value.place == place


def test_nothing_has_no_average():
    with pytest.raises(PlanError, match="push first"):
        CheckpointAverager().result()


def _pushed(*states):
    averager = CheckpointAverager()
    for state in states:
        averager.push(state)
