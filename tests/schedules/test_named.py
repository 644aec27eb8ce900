"""Published schedules against their equations and against other people's implementations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainplan import schedules as ts
from trainplan.errors import PlanError
from trainplan.schedules import NAMED, Schedule

W, N = 100, 1000
T = np.arange(N + 1)


def check(schedule: Schedule, equation: Callable[[float], float], start: int = 0) -> None:
    ready = schedule.resolve(N)
    expected = [equation(float(t)) for t in T[start:]]
    np.testing.assert_allclose(ready(T[start:]), expected, rtol=1e-11, atol=1e-16)


# Equations


def test_constant_with_warm_up() -> None:
    check(ts.constant(0.3, W), lambda t: 0.3 * min(1, t / W))


def test_skip_zero_starts_one_step_further_on() -> None:
    check(ts.constant(0.3, W, skip_zero=True), lambda t: 0.3 * min(1, (t + 1) / W))


@pytest.mark.parametrize(("end", "value"), [(0.0, 0.0), ("10%", 0.03), (0.1, 0.1)])
def test_linear_and_cosine(end: float | str, value: float) -> None:
    def line(t: float) -> float:
        return 0.3 * t / W if t < W else value + (0.3 - value) * (N - t) / (N - W)

    def wave(t: float) -> float:
        u = (t - W) / (N - W)
        return 0.3 * t / W if t < W else value + (0.3 - value) * (1 + math.cos(math.pi * u)) / 2

    check(ts.linear(0.3, end, W), line)
    check(ts.cosine(0.3, end, "10%"), wave)


def test_wsd_in_its_three_parts() -> None:
    def wsd(t: float) -> float:
        if t < 10:
            return 2.0 * t / 10
        return 2.0 if t < 900 else 2.0 * 0.1 ** ((t - 900) / 100)

    check(ts.wsd(2.0), wsd)


def test_wsd_without_a_decay_needs_no_horizon() -> None:
    trunk = ts.wsd(2.0, warmup=10, decay=None)
    assert [trunk(t) for t in (0, 5, 10, 10**9)] == [0, 1, 2, 2]


def test_the_authors_annealing_of_wsd_halves_for_ever() -> None:
    half = {"exponential": {"half_life": 50}}
    annealed = ts.wsd(1.0, warmup=0, decay=None, decay_start=100, shape=half, end=0.0)
    assert [annealed(t) for t in (99, 100, 150, 200)] == pytest.approx([1, 1, 0.5, 0.25])


def test_wsd_s_jumps_back_to_the_peak_after_each_window() -> None:
    def wsd_s(t: float) -> float:
        for first, last in ((300, 400), (800, 1000)):
            if first <= t < last or t == last == 1000:
                u = (t - first) / (last - first)
                return 1 / ((1 - u) / 1.0 + u / 0.1)
        return 1.0

    check(ts.wsd_s(1.0, windows=[(300, 400), (800, 1000)]), wsd_s)


def test_wsd_s_windows_from_budgets_cost_what_the_branches_cost() -> None:
    budgets = [1000, 2000, 4000]
    assert ts.wsd_s_windows(budgets) == [(900, 1000), (1900, 2100), (3900, 4300)]
    assert ts.wsd_windows(budgets) == [(900, 1000), (1800, 2000), (3600, 4000)]
    schedule = ts.wsd_s(1.0, budgets=budgets)
    assert schedule == ts.wsd_s(1.0, budgets=budgets)
    assert schedule(4300) == 0.1


def test_wsdc_holds_its_tail_and_further_levels() -> None:
    deep = ts.wsdc(1.0, 10, 50, 20, end=0.1, tail=10, levels=[(10, "1%"), (5, 0.5)])
    assert deep([10, 59, 80, 89, 90, 99, 100, 10**6]).tolist() == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01, 0.5, 0.5]
    )


def test_infinite_cools_holds_and_anneals() -> None:
    def infinite(t: float) -> float:
        if t < 50:
            return t / 50
        if t < 300:
            return 0.25 + 0.75 * (1 + math.cos(math.pi * (t - 50) / 250)) / 2
        return 0.25 if t < 800 else 0.25 * (0.01 / 0.25) ** ((t - 800) / 200)

    check(ts.infinite(1.0), infinite)


def test_infinite_for_later_datasets_begins_at_the_plateau() -> None:
    check(
        ts.infinite(1.0, task=1),
        lambda t: 0.25 if t < 800 else 0.25 * 0.04 ** ((t - 800) / 200),
    )
    assert ts.infinite(1.0, task=2, anneal_start=None)(10**6) == 0.25


def test_rewarm_begins_again_for_each_dataset() -> None:
    def rewarm(t: float) -> float:
        k, local = (0, t) if t < 400 else (1, t - 400)
        length, rise = (400, 4) if k == 0 else (600, 6)
        if local <= rise:
            return max(1, local) / rise
        u = (local - rise) / (length - rise)
        return 0.1 + 0.9 * (1 + math.cos(math.pi * u)) / 2

    check(ts.rewarm([400, 600], 1.0), rewarm)


def test_rewarm_can_rise_from_where_it_ended() -> None:
    again = ts.rewarm([100, 100], [1.0, 0.5], ["10%", 0.2], [10, "20%"], "previous_end")
    assert again([100, 110, 120, 200]).tolist() == pytest.approx([0.1, 0.3, 0.5, 0.2])


def test_power_follows_the_law_of_tokens() -> None:
    lr = ts.power(0.02, batch=128, warmup="1M tokens", decay=None)

    def law(n: float) -> float:
        return min(0.02, 128 * 4 * n**-0.51)

    ready = lr.resolve(10**10, unit="tokens")
    for n in (10**6, 10**7, 10**9, 5 * 10**9):
        assert ready(n) == pytest.approx(law(n), rel=1e-12)
    assert ready(5 * 10**5) == pytest.approx(law(10**6) / 2)
    steps = lr.resolve(10_000, tokens_per_step=10**6)
    assert steps(1000) == pytest.approx(law(10**9), rel=1e-12)


def test_stable_then_decay() -> None:
    check(
        ts.stable_then_decay(1.0, 600, 400, shape="linear"),
        lambda t: 1.0 if t < 600 else 1 - 0.9 * (t - 600) / 400,
    )


def test_cyclic_cosine_in_equal_parts() -> None:
    def cyclic(t: float) -> float:
        u = 1.0 if t == N else (t % 250) / 250
        return 0.1 + 0.9 * (1 + math.cos(math.pi * u)) / 2

    check(ts.cyclic_cosine(1.0, cycles=4), cyclic)


@given(st.integers(1, 12), st.integers(50, 10_000))
def test_any_number_of_cycles_fills_the_horizon(cycles: int, horizon: int) -> None:
    ready = ts.cyclic_cosine(1.0, cycles=cycles, end=0.0).resolve(horizon)
    values = ready(np.arange(horizon + 1))
    assert (values == 1.0).sum() == cycles
    assert values[-1] == 0


def test_uba_in_stages() -> None:
    two = ts.uba(1.0, phi=2.0, duration=100, stages=[(100, 0.5, 0.1)])
    expected = [1, 0.5, 0.5, 0.1 + 0.4 * 2 / (4 + 0 * 1), 0.1]
    assert two([0, 50, 100, 150, 200]).tolist() == pytest.approx(expected, abs=1e-12)


def test_the_authors_table_of_cosine_power_holds_one_value_per_epoch() -> None:
    table = ts.cosine_power(1.0, end=0.1, duration=10, mode="authors_epoch_table")
    assert table(0) == table(0.9) == 1.0
    assert table(9) == table(100) == pytest.approx(0.1)


def test_resume_ramp_overrides_for_a_while() -> None:
    ramp = ts.resume_ramp(ts.linear(1.0), 1.0, at=50, duration=10).resolve(100)
    plain = ts.linear(1.0).resolve(100)
    assert [ramp(t) for t in (50, 55)] == [0, 0.5]
    assert [ramp(t) for t in (0, 49, 60, 100)] == pytest.approx(
        [plain(t) for t in (0, 49, 60, 100)]
    )


# Other people's implementations


def torch_values(make: Callable[[Any, Any], Any], lr: float = 0.1, steps: int = N) -> list[float]:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(()))], lr=lr)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    values = []
    for _ in range(steps):
        values.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return values


TORCH: dict[str, tuple[Schedule, Callable[[Any, Any], Any]]] = {
    "CosineAnnealingLR": (
        ts.cosine(0.1, end=0.001, duration=N),
        lambda m, o: m.CosineAnnealingLR(o, T_max=N, eta_min=0.001),
    ),
    "CosineAnnealingWarmRestarts": (
        ts.cosine(0.1, duration=50).repeat(),
        lambda m, o: m.CosineAnnealingWarmRestarts(o, T_0=50),
    ),
    "StepLR": (ts.step(0.1, every=30, factor=0.5), lambda m, o: m.StepLR(o, 30, 0.5)),
    "MultiStepLR": (
        ts.step(0.1, at=[300, 400, 900]),
        lambda m, o: m.MultiStepLR(o, [300, 400, 900], 0.1),
    ),
    "LinearLR": (
        ts.Phase(0.1 * 0.25, 0.1, 200),
        lambda m, o: m.LinearLR(o, start_factor=0.25, total_iters=200),
    ),
    "PolynomialLR": (
        ts.Phase(0.1, 0.0, 500, {"polynomial": 2}),
        lambda m, o: m.PolynomialLR(o, total_iters=500, power=2),
    ),
    "ExponentialLR": (ts.Stairs(0.1, 0.99, 1), lambda m, o: m.ExponentialLR(o, 0.99)),
    # PyTorch's cycle lasts one step less than its total, and its rise one less than its share.
    "OneCycleLR": (
        ts.one_cycle(0.1, warmup=299, duration=N),
        lambda m, o: m.OneCycleLR(o, max_lr=0.1, total_steps=N + 1, pct_start=300 / (N + 1)),
    ),
    "ConstantLR": (
        ts.Sequence(ts.Hold(0.02, 10), ts.Hold(0.1)),
        lambda m, o: m.ConstantLR(o, factor=0.2, total_iters=10),
    ),
    "SequentialLR": (
        ts.cosine(0.1, warmup=100, duration=N),
        lambda m, o: m.SequentialLR(
            o,
            [
                m.LambdaLR(o, lambda t: t / 100),
                m.CosineAnnealingLR(o, T_max=N - 100),
            ],
            [100],
        ),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch_has_the_same_values(name: str) -> None:
    ours, make = TORCH[name]
    theirs = torch_values(make)
    np.testing.assert_allclose(ours(np.arange(N)), theirs, rtol=1e-9, atol=1e-14)


def test_optax_has_the_same_values() -> None:
    optax = pytest.importorskip("optax")
    jax = pytest.importorskip("jax")
    pairs = {
        "warmup_cosine": (
            ts.cosine(0.1, end=0.01, warmup=100, duration=N),
            optax.warmup_cosine_decay_schedule(0.0, 0.1, 100, N, 0.01),
        ),
        "linear": (ts.linear(0.1, end=0.02, duration=N), optax.linear_schedule(0.1, 0.02, N)),
        "polynomial": (
            ts.Sequence(ts.Hold(0.1, 200), ts.Phase(0.1, 0.01, 500, {"polynomial": 3})),
            optax.polynomial_schedule(0.1, 0.01, 3, 500, 200),
        ),
        "stairs": (
            ts.step(0.1, every=70, factor=0.8),
            optax.exponential_decay(0.1, 70, 0.8, staircase=True),
        ),
        "milestones": (
            ts.step(0.1, at=[300, 700], factor=0.5),
            optax.piecewise_constant_schedule(0.1, {300: 0.5, 700: 0.5}),
        ),
        "one cycle": (
            ts.one_cycle(0.1, start=0.1 / 25, end=0.1 / 25 / 1e4, duration=N),
            optax.cosine_onecycle_schedule(N, 0.1, 0.3, 25, 1e4),
        ),
        "warmup_constant": (ts.constant(0.1, 50), optax.warmup_constant_schedule(0.0, 0.1, 50)),
    }
    with jax.enable_x64(True):
        for name, (ours, theirs) in pairs.items():
            expected = np.asarray(jax.vmap(theirs)(jax.numpy.arange(N)), np.float64)
            np.testing.assert_allclose(
                ours(np.arange(N)), expected, rtol=1e-6, atol=1e-9, err_msg=name
            )


# Refusals


@pytest.mark.parametrize(
    ("build", "place"),
    [
        (lambda: ts.cosine("high"), "peak"),
        (lambda: ts.cosine(math.nan), "peak"),
        (lambda: ts.cosine(1.0, end="10"), "end"),
        (lambda: ts.cosine(1.0, end="nan%"), "end"),
        (lambda: ts.cosine(1.0, end=math.inf), "end"),
        (lambda: ts.cosine(1.0, warmup=-3), "warmup"),
        (lambda: ts.cosine(1.0, warmup=None), "warmup"),
        (lambda: ts.cosine(1.0, warmups=3), "warmups"),
        (lambda: ts.step(1.0), "every"),
        (lambda: ts.step(1.0, every=1, at=[3]), "every"),
        (lambda: ts.step(1.0, at=[3, "x"]), "at[1]"),
        (lambda: ts.wsd(1.0, shape="sqrt"), "shape"),
        (lambda: ts.wsd(1.0, end=0.0), "end"),
        (lambda: ts.wsd_s(1.0), "windows"),
        (lambda: ts.wsd_s(1.0, windows=[(3, 4, 5)]), "windows[0]"),
        (lambda: ts.wsd_s(1.0, budgets=[20, 10]), "budgets"),
        (lambda: ts.wsd_s(1.0, budgets=[10], fraction=1.5), "fraction"),
        (lambda: ts.wsdc(1.0, 1, 1, 1, levels=[(3, 0.1)]), "tail"),
        (lambda: ts.infinite(1.0, task=-1), "task"),
        (lambda: ts.rewarm([10, 0], 1.0), "datasets[1]"),
        (lambda: ts.rewarm([10, 10], [1.0]), "peak"),
        (lambda: ts.rewarm([10], 1.0, warmup=20), "warmup"),
        (lambda: ts.rewarm([10], 1.0, rewarm_from="one"), "rewarm_from"),
        (lambda: ts.rewarm([], 1.0), "datasets"),
        (lambda: ts.damped_cosine(1.0, cycles=0), "cycles"),
        (lambda: ts.cosine_power(1.0, p=0.5), "p"),
        (lambda: ts.cosine_power(1.0, mode="table"), "mode"),
        (lambda: ts.cosine_power(1.0, mode="authors_epoch_table"), "duration"),
        (lambda: ts.rex(1.0, d=1.0), "d"),
        (lambda: ts.uba(1.0, phi=0), "phi"),
        (lambda: ts.uba(1.0, stages=[(3, 1.0, 0.0)]), "duration"),
        (lambda: ts.uba(1.0, duration=5, stages=[(3, 1.0)]), "stages[0]"),
        (lambda: ts.uba(1.0, duration=5, stages=[(3, "a", 0.0)]), "stages[0][1]"),
        (lambda: ts.power(1.0, batch=-1), "coefficient"),
        (lambda: ts.cyclic_cosine(1.0), "cycles"),
        (lambda: ts.cyclic_cosine(1.0, cycles=0), "cycles"),
        (lambda: ts.cyclic_cosine(1.0, ends=[]), "ends"),
        (lambda: ts.resume_ramp(ts.constant(1.0), 1.0, at=-1, duration=3), "at"),
        (lambda: ts.resume_ramp("cosine", 1.0, at=1, duration=3), "schedule"),
    ],
)
def test_wrong_parameters_are_named(build: Callable[[], Schedule], place: str) -> None:
    with pytest.raises(PlanError) as caught:
        build()
    assert caught.value.place == place


@pytest.mark.parametrize("name", NAMED)
def test_every_schedule_says_which_parameters_it_needs(name: str) -> None:
    with pytest.raises(PlanError, match=r"It needs: .*peak"):
        getattr(ts, name)()
