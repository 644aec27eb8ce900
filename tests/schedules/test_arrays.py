"""The same values come out of Python numbers, NumPy, PyTorch and JAX, in the caller's own kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from strategies import HORIZONS, schedules
from trainplan import schedules as ts
from trainplan.errors import PlanError
from trainplan.schedules import Schedule

HORIZON = 1000
EVERY_KIND = {
    "constant": ts.constant(0.1, warmup=10),
    "linear": ts.linear(0.1, warmup="10%"),
    "cosine": ts.cosine(0.1, end="10%", warmup=100, skip_zero=True),
    "one_cycle": ts.one_cycle(0.1),
    "step": ts.step(0.1, at=[300, 600]),
    "stairs": ts.step(0.1, every=7),
    "wsd": ts.wsd(0.1),
    "wsd_s": ts.wsd_s(0.1, windows=[(300, 400), (800, 1000)]),
    "half-life": ts.wsd(
        0.1, decay=None, decay_start=500, shape={"exponential": {"half_life": 50}}, end=0.0
    ),
    "infinite": ts.infinite(0.1, shape="inverse-sqrt"),
    "damped_cosine": ts.damped_cosine(0.1, cycles=3),
    "cosine_power": ts.cosine_power(0.1),
    "rex": ts.rex(0.1),
    "uba": ts.uba(0.1),
    "power": ts.PowerLaw(0.3, -0.4, cap=0.1),
    "inverse sigmoid": ts.InverseSigmoid(0.1, 120.0),
    "profile": ts.Profile((0.1, 0.3, 0.0)) * 2,
    "held profile": ts.Profile((0.1, 0.3, 0.0), hold=True),
    "repeated": ts.cosine(0.1, duration=70).repeat(),
    "repeated twice": ts.cosine(0.1, duration=70).repeat(times=2),
    "shifted": ts.rex(0.1, duration=500).shift(20).clip(0.01, 0.09),
    "stretched": ts.linear(0.1).stretch(1.7) + 0.3,
    "sampled": ts.cosine(1.0).sample(at=["10%", "50%"]),
    "product": ts.cosine(1.0) * ts.step(0.1, every=100),
    "step shape": ts.wsd(0.1, decay="50%", shape="step"),
}
KINDS = pytest.mark.parametrize("name", EVERY_KIND)


def ready(name: str, horizon: float = HORIZON) -> Schedule:
    return EVERY_KIND[name].resolve(horizon)


def true(name: str, t: np.ndarray) -> np.ndarray:
    """Values computed one by one in float64."""
    schedule = ready(name)
    return np.array([schedule(x) for x in t.tolist()])


T = np.arange(0, 1200)


@KINDS
def test_a_number_gives_a_float(name: str) -> None:
    schedule = ready(name)
    for t in (3, 3.0, np.int64(3), np.float32(3), np.uint8(3)):
        value = schedule(t)
        assert type(value) is float
        assert value == schedule(3)


@KINDS
@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "uint64", "float32"])
def test_numpy_is_computed_in_float64(name: str, dtype: str) -> None:
    t = np.arange(120).astype(dtype)
    values = ready(name)(t)
    assert isinstance(values, np.ndarray)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, true(name, t), rtol=1e-13, atol=1e-17)


@KINDS
def test_shapes_of_arrays_are_kept(name: str) -> None:
    t = np.array([[5, 999, 3], [500, 0, 12]])
    values = ready(name)(t)
    assert values.shape == (2, 3)
    np.testing.assert_allclose(values.ravel(), true(name, t.ravel()), rtol=1e-13, atol=1e-17)
    assert ready(name)(np.empty((0, 4))).shape == (0, 4)
    assert ready(name)(np.array(7)).shape == ()
    np.testing.assert_allclose(ready(name)([0, 1, 2]), true(name, np.arange(3)), rtol=1e-13)


def test_long_arrays_are_the_same_as_short_ones() -> None:
    schedule = ts.wsd(0.1).resolve(100_000)
    whole = schedule(np.arange(100_000))
    parts = np.concatenate([schedule(np.arange(i, i + 1000)) for i in range(0, 100_000, 1000)])
    assert whole.tolist() == parts.tolist()


# PyTorch


@KINDS
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int32", "int16"])
def test_torch_tensors_stay_torch_tensors(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    t = torch.arange(1200).to(getattr(torch, dtype))
    values = ready(name)(t)
    assert isinstance(values, torch.Tensor)
    assert values.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    tolerance = 1e-13 if dtype == "float64" else 3e-6
    np.testing.assert_allclose(values.double().numpy(), true(name, T), tolerance, tolerance * 1e-1)


@KINDS
def test_single_torch_tensors_stay_single(name: str) -> None:
    torch = pytest.importorskip("torch")
    schedule = ready(name)
    for t in (torch.tensor(700), torch.tensor(700.0, dtype=torch.float64)):
        value = schedule(t)
        assert value.shape == ()
        assert value.item() == pytest.approx(schedule(700), rel=1e-6)
    assert schedule(torch.empty((0, 2))).shape == (0, 2)
    assert schedule(torch.zeros((3, 2))).shape == (3, 2)


# JAX


@KINDS
def test_jax_arrays_work_inside_jit_and_vmap(name: str) -> None:
    jax = pytest.importorskip("jax")
    schedule = ready(name)
    t = jax.numpy.asarray(T, dtype="int32")
    for values in (schedule(t), jax.jit(jax.vmap(schedule))(t)):
        assert isinstance(values, jax.Array)
        assert values.dtype == np.float32
        np.testing.assert_allclose(np.asarray(values, np.float64), true(name, T), 3e-6, 3e-7)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("name", ["cosine", "stairs", "wsd", "repeated"])
def test_jax_arrays_of_any_kind_give_float32(name: str, dtype: str) -> None:
    jax = pytest.importorskip("jax")
    t = np.arange(120)
    values = ready(name)(jax.numpy.asarray(t, dtype=dtype))
    assert values.dtype == np.float32
    np.testing.assert_allclose(np.asarray(values, np.float64), true(name, t), 3e-6, 3e-7)
    assert jax.jit(ready(name))(jax.numpy.asarray(3)).shape == ()


@KINDS
def test_jax_in_float64_is_as_good_as_numpy(name: str) -> None:
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        values = jax.jit(ready(name))(jax.numpy.arange(1200))
        assert values.dtype == np.float64
        np.testing.assert_allclose(np.asarray(values), true(name, T), rtol=1e-12, atol=1e-16)


LONG = 2**25
LATE = np.array([2**24 + 1, 2**24 + 3, 30_000_001, LONG - 3, LONG - 2, LONG - 1, LONG, LONG + 1])
DECAYS = {
    "linear": ts.linear(1.0),
    "cosine": ts.cosine(1.0),
    "1-sqrt": ts.wsd(1.0, warmup=1000, decay="20%", shape="1-sqrt", end=0.0),
    "1-square": ts.wsd(1.0, warmup=1000, decay="20%", shape="1-square", end=0.0),
    "exponential": ts.wsd(1.0, shape={"exponential": {"ratio": 0.1}}, end=0.0),
    "rex": ts.rex(1.0),
    "uba": ts.uba(1.0),
}


@pytest.mark.parametrize("name", DECAYS)
def test_the_last_of_many_steps_keep_their_digits_in_float32(name: str) -> None:
    """Past 2^24 float32 cannot tell steps apart, but integers can, until they are subtracted."""
    schedule = DECAYS[name].resolve(LONG)
    expected = schedule(LATE)
    assert expected[-3] > 0
    assert expected[-1] == expected[-2] == 0
    torch = pytest.importorskip("torch")
    ours = schedule(torch.tensor(LATE, dtype=torch.int32)).double().numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    jax = pytest.importorskip("jax")
    jitted = jax.jit(schedule)(jax.numpy.asarray(LATE, dtype="int32"))
    np.testing.assert_allclose(np.asarray(jitted, np.float64), expected, rtol=1e-6)


@settings(max_examples=30)
@given(schedules, HORIZONS)
def test_torch_agrees_with_numpy_on_any_schedule(schedule: Schedule, horizon: int) -> None:
    torch = pytest.importorskip("torch")
    t = np.unique(np.linspace(0, 1.2 * horizon, 61).round())
    resolved = schedule.resolve(horizon)
    expected = resolved(t)
    for kind in (torch.float64, torch.int64):
        with torch.no_grad():
            ours = resolved(torch.tensor(t).to(kind))
        tolerance = 1e-11 if kind == torch.float64 else 1e-4
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(ours.double().numpy(), expected, tolerance, tolerance * scale)


def test_a_schedule_is_an_optax_schedule() -> None:
    optax = pytest.importorskip("optax")
    jax = pytest.importorskip("jax")
    optimizer = optax.sgd(learning_rate=ts.linear(1.0).resolve(4))
    weight, state = jax.numpy.zeros(()), optimizer.init(jax.numpy.zeros(()))
    step = jax.jit(optimizer.update)
    for _ in range(4):
        update, state = step(jax.numpy.ones(()), state)
        weight = optax.apply_updates(weight, update)
    assert weight.item() == -(1 + 0.75 + 0.5 + 0.25)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (-1, "cannot be negative"),
        (-0.5, "cannot be negative"),
        (float("nan"), "not a number"),
        (float("inf"), "beyond 2"),
        (2**53 + 1, "beyond 2"),
        (np.array([1.0, -2.0]), "cannot be negative"),
        (np.array([1.0, np.nan]), "not a number"),
        (np.array([1.0, np.inf]), "beyond 2"),
        ([0, -3], "cannot be negative"),
    ],
)
def test_impossible_times_are_refused(t: object, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        ts.constant(0.1)(t)  # type: ignore[call-overload]


@pytest.mark.parametrize("t", ["3", None, object(), {}])
def test_what_is_no_time_is_refused(t: object) -> None:
    with pytest.raises(TypeError, match="number or an array"):
        ts.constant(0.1)(t)  # type: ignore[call-overload]
