"""Speed of schedules and of the PyTorch adapter, as ratios measured in one run.

    python benchmarks/schedules.py

1. A million-step curve of every named schedule against a plain NumPy cosine of that length
   (limit: 5x) and against evaluating the schedule point by point in Python (limit: 1/20).
2. What attaching a plan adds to ``optimizer.step()`` with two groups, against
   ``LambdaLR.step()`` (limit: 1x), and what is allocated per step (limit: nothing).
"""

from __future__ import annotations

import platform
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import torch

import trainplan as tp

N = 1_000_000
SPARSE = 50  # every 50th point is evaluated alone, and the time scaled up
s = tp.schedules
SCHEDULES = {
    "constant": s.constant(1.0, "1%"),
    "linear": s.linear(1.0, warmup="1%"),
    "cosine": s.cosine(1.0, "10%", "1%"),
    "one_cycle": s.one_cycle(1.0),
    "step": s.step(1.0, every="30%"),
    "wsd": s.wsd(1.0),
    "wsd_s": s.wsd_s(1.0, [("40%", "50%"), ("90%", "100%")]),
    "wsdc": s.wsdc(1.0, "10%", "50%", "30%"),
    "infinite": s.infinite(1.0),
    "rewarm": s.rewarm([N // 2] * 2, 1.0),
    "damped_cosine": s.damped_cosine(1.0, cycles=3),
    "cosine_power": s.cosine_power(1.0, "1%"),
    "rex": s.rex(1.0, "1%"),
    "uba": s.uba(1.0, "1%"),
    "power": s.power(0.02, 1024, warmup="1%"),
    "stable_then_decay": s.stable_then_decay(1.0, "80%", "20%"),
    "cyclic_cosine": s.cyclic_cosine(1.0, 8),
    "refine": s.refine(1 + np.random.default_rng(0).random(2000), 1.0),
    "resume_ramp": s.resume_ramp(s.cosine(1.0), 1.0, N // 2, 1000),
}


def best(function: Callable[[], object], repeats: int = 7) -> float:
    """The fastest of several calls, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def curves() -> None:
    """Print the table of curves."""
    steps = np.arange(N)
    plain = best(lambda: 0.5 * (1 + np.cos(np.pi * steps / N)))
    print(f"A curve of {N:,} steps; plain NumPy cosine: {plain * 1e3:.1f} ms\n")
    print(f"{'schedule':18s} {'ms':>7s} {'/ numpy':>8s} {'limit 5':>8s} ", end="")
    print(f"{'us/point':>9s} {'/ curve':>8s} {'limit 20':>9s}")
    for name, schedule in SCHEDULES.items():
        ready = schedule.resolve(N, tokens_per_step=4_194_304)
        whole = best(lambda ready=ready: ready(steps))
        few = range(0, N, SPARSE)
        alone = best(lambda ready=ready, few=few: [ready(t) for t in few], 3) * SPARSE
        a, b = whole / plain, alone / whole
        print(f"{name:18s} {whole * 1e3:7.1f} {a:8.2f} {'ok' if a <= 5 else 'OVER':>8s} ", end="")
        print(f"{alone / N * 1e6:9.2f} {b:8.0f} {'ok' if b >= 20 else 'UNDER':>9s}")


class Idle(torch.optim.Optimizer):
    """An optimizer that does nothing, so that what is added to its step can be seen."""

    def __init__(self, groups: list[dict[str, object]]) -> None:
        super().__init__(groups, {"lr": 1e-3})

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        pass


def optimizer(groups: int = 2) -> torch.optim.Optimizer:
    """An idle optimizer with parameter groups of different rates."""
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(groups)]
    return Idle([{"params": [p], "lr": 1e-3 * (k + 1)} for k, p in enumerate(parameters)])


def per_step(functions: dict[str, Callable[[], object]], n: int = 5_000) -> dict[str, float]:
    """Microseconds per call of each function, the best of many rounds taken in turn."""
    times = dict.fromkeys(functions, float("inf"))
    for _ in range(40):
        for name, function in functions.items():
            start = time.perf_counter()
            for _ in range(n):
                function()
            times[name] = min(times[name], (time.perf_counter() - start) / n * 1e6)
    return times


def attaching() -> None:
    """Print what attaching costs per step."""
    plan = tp.Plan(horizon=10**7, lr=s.wsd(1e-3, "1%", "20%", "1-sqrt", 0.0))
    bare, attached, scheduled = optimizer(), optimizer(), optimizer()
    run = tp.torch.attach(plan, attached)
    curve = plan["lr"]
    lambda_lr = torch.optim.lr_scheduler.LambdaLR(scheduled, lambda t: curve(t) / 1e-3)
    simple = torch.optim.lr_scheduler.LambdaLR(optimizer(), lambda t: 1.0)
    genuine = tp.torch.as_lr_scheduler(plan, optimizer())
    for scheduler in (lambda_lr, simple, genuine):
        scheduler.optimizer.step()
    rows = per_step(
        {
            "idle optimizer.step() alone": bare.step,
            "idle optimizer.step() with a plan": attached.step,
            "LambdaLR.step(), lambda t: 1.0": simple.step,
            "LambdaLR.step(), the same schedule": lambda_lr.step,
            "as_lr_scheduler(plan).step()": genuine.step,
        }
    )
    added = rows["idle optimizer.step() with a plan"] - rows["idle optimizer.step() alone"]
    rows["what the plan adds to a step"] = added
    print("\nTwo groups, microseconds per step")
    for name, value in rows.items():
        print(f"{name:36s} {value:6.2f}")
    ratio = added / rows["LambdaLR.step(), lambda t: 1.0"]
    print(f"added / LambdaLR.step(): {ratio:.2f} (limit 1) {'ok' if ratio <= 1 else 'OVER'}")
    print(f"allocated and kept by 10,000 steps: {kept(attached.step)} bytes (t = {run.t:,})")


def kept(function: Callable[[], object]) -> int:
    """Bytes that are still allocated after many calls."""
    tracemalloc.start()
    for _ in range(1000):
        function()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(10_000):
        function()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return max(0, after - before)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, ",
        end="",
    )
    print(f"NumPy {np.__version__}, PyTorch {torch.__version__}\n")
    curves()
    attaching()
