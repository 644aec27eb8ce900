"""Keras trains with a plan's learning rate, and saves and restores it as plain values."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
pytest.importorskip("jax")
keras = pytest.importorskip("keras")

import jax  # noqa: E402
import with_keras as example  # noqa: E402

import trainplan as tp  # noqa: E402

STEPS = 12
plan = example.plan


def weights(model):
    return [np.asarray(w) for w in model.get_weights()]


@pytest.fixture(scope="module")
def uninterrupted():
    model = example.begin()
    example.train(model, STEPS)
    return weights(model)


@pytest.mark.parametrize("step", [1, 2, 3, 6, 9, 10, 11])
def test_resuming_from_a_saved_model_changes_nothing(uninterrupted, tmp_path, step):
    model = example.begin()
    example.train(model, step)
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.optimizer.iterations == step
    example.train(model, STEPS - step)
    for a, b in zip(weights(model), uninterrupted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_equals_plain_pytorch(uninterrupted):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(4, 1)
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    # Keras folds the rate into the momentum buffer, PyTorch multiplies it afterwards.
    buffers = [torch.zeros_like(p) for p in layer.parameters()]
    for t in range(STEPS):
        layer.zero_grad()
        prediction = layer(torch.tensor(example.x))
        torch.nn.functional.mse_loss(prediction, torch.tensor(example.y)).backward()
        with torch.no_grad():
            for p, buffer in zip(layer.parameters(), buffers, strict=True):
                buffer.mul_(0.9).sub_(p.grad, alpha=plan.at(t)["lr"])
                p.add_(buffer)
    kernel, bias = uninterrupted
    np.testing.assert_allclose(kernel[:, 0], layer.weight.detach()[0], rtol=1e-5)
    np.testing.assert_allclose(bias, layer.bias.detach(), rtol=1e-4, atol=1e-6)


def test_each_update_uses_the_value_of_its_step():
    model = example.begin()
    for t in range(STEPS + 2):
        assert float(model.optimizer.learning_rate) == pytest.approx(plan["lr"](t), rel=1e-6)
        example.train(model, 1)


def test_float32_is_exact_past_2_to_the_24_inside_jit():
    length = 2**25
    rate = tp.keras.LearningRate(tp.Plan(horizon=length, lr=tp.schedules.linear(1.0)))
    for step in (0, length // 2 + 1, length - 2, length - 1, length):
        value = jax.jit(rate)(jax.numpy.int32(step))
        assert float(value) == pytest.approx((length - step) / length, rel=1e-6, abs=0)


def test_accumulated_batches_make_one_update(uninterrupted, tmp_path):
    model = example.begin(accumulate=4)
    example.train(model, 4 * 5 + 2)
    assert model.optimizer.iterations == 5
    assert float(model.optimizer.learning_rate) == pytest.approx(plan["lr"](5), rel=1e-6)
    example.train(model, 2)
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    example.train(model, 4 * (STEPS - 6))
    for a, b in zip(weights(model), uninterrupted, strict=True):  # four equal batches are one
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_config_is_plain_and_holds_the_learning_rate_only():
    full = tp.Plan(
        horizon=80,
        unit="tokens",
        tokens_per_step=8,
        lr=plan.knobs["lr"],
        weight_decay=0.1,
        mask_rate=tp.schedules.linear(0.3),
    )
    config = json.loads(
        json.dumps(keras.saving.serialize_keras_object(tp.keras.LearningRate(full)))
    )
    assert config["registered_name"] == "trainplan>LearningRate"
    assert set(config["config"]["plan"]) == {"horizon", "unit", "tokens_per_step", "lr"}
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == config["config"]
    assert float(again(5)) == pytest.approx(full["lr"](40))


def test_a_longer_plan_is_given_to_a_loaded_model(tmp_path):
    short = tp.Plan(horizon=10, lr=tp.schedules.wsd(0.1, warmup=2, decay="20%"))
    model = example.begin(short)
    example.train(model, 6)
    model.save(tmp_path / "model.keras")
    longer = short.extend(at=6, horizon=20)
    model = keras.saving.load_model(tmp_path / "model.keras")
    model.optimizer.learning_rate = tp.keras.LearningRate(longer)
    model.compile(optimizer=model.optimizer, loss="mse")
    example.train(model, 11)
    assert model.optimizer.iterations == 17
    assert float(model.optimizer.learning_rate) == pytest.approx(longer["lr"](17), rel=1e-6)


def test_what_keras_cannot_do_is_refused():
    with pytest.raises(tp.PlanError, match=r"lr: Keras takes one schedule here"):
        tp.keras.LearningRate(tp.Plan(lr=tp.schedules.ReduceOnPlateau(0.1)))
    with pytest.raises(tp.PlanError, match=r"lr: .*tokens_per_step"):
        tp.keras.LearningRate(tp.Plan(horizon=10, unit="tokens", lr=0.1))


def test_the_same_example_runs_on_the_torch_backend(tmp_path):
    pytest.importorskip("torch")
    script = """
import with_keras as example, keras, trainplan as tp, numpy as np
assert keras.backend.backend() == "torch"
whole, model = example.begin(), example.begin()
example.train(whole, 12)
example.train(model, 7)
model.save("model.keras")
model = keras.saving.load_model("model.keras")
example.train(model, 5)
for a, b in zip(whole.get_weights(), model.get_weights()):
    np.testing.assert_array_equal(a, b)
rate = tp.keras.LearningRate(tp.Plan(horizon=2**25, lr=tp.schedules.linear(1.0)))
assert float(rate(keras.Variable(2**25 - 1, dtype="int32", trainable=False))) == 2.0**-25
print(*whole.get_weights()[0].ravel())
"""
    environment = {
        **os.environ,
        "KERAS_BACKEND": "torch",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    model = example.begin()
    example.train(model, STEPS)
    found = np.array(done.stdout.split(), dtype=float)
    np.testing.assert_allclose(found, weights(model)[0].ravel(), rtol=1e-5)
