"""Measure the loss curves that trainplan brings along as an example, and pack them.

    python benchmarks/example_curves.py runs/example

Nine schedules of one peak on the ``text`` workload, over 1500 and 3000 steps, on three seeds, about
eight minutes on two cores. Interrupted, it goes on where it was. The validation loss was measured
every 25 steps; it is thinned to every 50th until the rate begins to fall, since nothing happens
quickly there, and written with five decimals to ``src/trainplan/laws/example.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from trainplan import Plan
from trainplan import schedules as s
from trainplan.lab.comparison import begin, execute, resume
from trainplan.lab.environment import available_cores
from trainplan.lab.experiment import Arm, Experiment
from trainplan.lab.results import Comparison
from trainplan.laws.curves import rates_of

PEAK, WARMUP = 4e-3, 100
SHORT, LONG = 1500, 3000
EVERY, THINNED = 25, 50
PACKED = Path(__file__).parents[1] / "src" / "trainplan" / "laws" / "example.json"


def arms() -> tuple[Arm, ...]:
    """The schedules; those that begin alike share the steps that they have in common."""
    rates: dict[str, tuple[int, s.Schedule]] = {"constant": (LONG, s.constant(PEAK, WARMUP))}
    for steps in (LONG, SHORT):
        rates[f"cosine-{steps}"] = steps, s.cosine(PEAK, end="10%", warmup=WARMUP)
        rates[f"linear-{steps}"] = steps, s.linear(PEAK, warmup=WARMUP)
        rates[f"wsd-{steps}"] = (
            steps,
            s.wsd(PEAK, warmup=WARMUP, decay="20%", shape="1-sqrt", end=0.0),
        )
    rates["wsd-linear"] = LONG, s.wsd(PEAK, warmup=WARMUP, decay="40%", shape="linear", end=0.0)
    rates["two-stage"] = LONG, s.step(PEAK, at=[SHORT], factor=0.3, warmup=WARMUP)
    return tuple(
        Arm(name, Plan(horizon=steps, name=name, lr=lr)) for name, (steps, lr) in rates.items()
    )


def measure(root: Path) -> Comparison:
    """Train what is not trained yet."""
    jobs = available_cores()
    if (root / "manifest.json").exists():
        return execute(resume(root), jobs=jobs)
    experiment = Experiment(arms=arms(), seeds=(0, 1, 2), eval_every=EVERY)
    return execute(begin(root, experiment, jobs), jobs=jobs)


def pack(comparison: Comparison) -> dict[str, Any]:
    """The thinned curves with the plans that made them."""
    packed = []
    for arm in comparison.experiment.arms:
        runs = [comparison.runs[arm.name, seed] for seed in comparison.experiment.seeds]
        steps = runs[0].evaluated
        rates = rates_of(arm.plan, int(steps[-1]))
        falls = np.flatnonzero(np.diff(rates) < 0)
        fall = falls[0] if falls.size else len(rates)
        keep = (steps % THINNED == 0) | (steps > fall)
        losses = {str(run.seed): run.metrics["loss"][keep].round(5).tolist() for run in runs}
        packed.append(
            {
                "name": arm.name,
                "plan": arm.plan.to_dict(),
                "step": steps[keep].tolist(),
                "loss": losses,
            }
        )
    return {
        "format": "trainplan-curves/1",
        "made": "benchmarks/example_curves.py",
        "workload": dict(comparison.workload),
        "curves": packed,
    }


def main() -> None:
    """Measure, pack, and say what was made."""
    content = pack(measure(Path(sys.argv[1])))
    PACKED.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    points = sum(len(curve["step"]) for curve in content["curves"])
    size = PACKED.stat().st_size / 1000
    sys.stdout.write(f"{len(content['curves'])} curves, {points} points, {size:.0f} kB\n")


if __name__ == "__main__":
    main()
