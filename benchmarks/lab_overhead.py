"""What the lab's training loop costs beyond a hand-written loop of the same model.

    python benchmarks/lab_overhead.py [--steps 150] [--repetitions 7]

Both train the ``text`` workload from the same seed with the same schedule, clipping and final
evaluation, and end with the same weights (checked). The lab's loop also seeds every step, writes a
row per step, and records digests. Repetitions alternate, so that a busy machine slows both, and
CPU time is measured, so that waiting for a core does not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import torch

import trainplan as tp
from trainplan.lab.checkpoint import weights_digest
from trainplan.lab.environment import environment
from trainplan.lab.job import SegmentJob
from trainplan.lab.train import train_segment
from trainplan.lab.workload import WorkloadSpec

LIMIT = 1.03
SPEC = WorkloadSpec("text")


def plan_for(steps: int) -> tp.Plan:
    return tp.Plan(horizon=steps, lr=tp.schedules.wsd(4e-3, warmup="5%", decay="20%"))


def by_hand(steps: int) -> str:
    """The loop that one writes without the lab."""
    task = SPEC.load().build(0)
    optimizer, model = task.optimizer, task.model
    lr = plan_for(steps)["lr"]
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr(step)
        loss = task.loss(task.batch(step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    task.evaluate()
    return weights_digest(model)


def by_the_lab(steps: int, *, norms: bool = False) -> str:
    with tempfile.TemporaryDirectory() as folder:
        job = SegmentJob(
            key="a",
            seed=0,
            start=0,
            stop=steps,
            directory=folder,
            parent=None,
            plan=plan_for(steps).to_dict(),
            workload=SPEC.to_dict(),
            eval_every=steps,
            eval_at_stop=True,
            record_grad_norms=norms,
            keep_end=False,
        )
        outcome = train_segment(job, lambda step, loss: False)
    assert outcome is not None
    return outcome.weights


def cpu_seconds(function: Callable[[], str]) -> tuple[float, str]:
    begin = time.process_time()
    result = function()
    return time.process_time() - begin, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--repetitions", type=int, default=7)
    steps, repetitions = (options := parser.parse_args()).steps, options.repetitions
    torch.set_num_threads(1)
    loops = {
        "by hand": lambda: by_hand(steps),
        "lab": lambda: by_the_lab(steps),
        "lab, with gradient norms": lambda: by_the_lab(steps, norms=True),
    }
    by_hand(10)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    weights = set()
    for _ in range(repetitions):
        for name, loop in loops.items():
            spent, digest = cpu_seconds(loop)
            seconds[name].append(spent)
            weights.add(digest)
    assert len(weights) == 1, "the loops must train the same weights to the bit"

    here = environment(1)
    print(f"{steps} steps of text, {repetitions} alternating repetitions, CPU time, one thread")
    print(f"{here['cpu']}, Python {here['python']}, torch {here['torch']}, {here['date']}")
    print(
        f"{'loop':<26}{'median ms/step':>15}{'min ms/step':>13}{'ratio of minima':>17}{'limit':>7}"
    )
    least = min(seconds["by hand"])
    worst = 0.0
    for name, times in seconds.items():
        ratio = min(times) / least
        limit = f"{LIMIT:.2f}" if name == "lab" else ""
        worst = ratio if name == "lab" else worst
        middle, low = (1e3 * x / steps for x in (statistics.median(times), min(times)))
        print(f"{name:<26}{middle:>15.2f}{low:>13.2f}{ratio:>17.3f}{limit:>7}")
    sys.exit(0 if worst <= LIMIT else 1)


if __name__ == "__main__":
    main()
