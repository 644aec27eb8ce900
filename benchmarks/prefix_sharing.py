"""What eight horizons of one WSD plan cost when their common part is trained once.

    python benchmarks/prefix_sharing.py [--shortest 50]

Trains a small ``text`` model for eight horizons, with and without sharing, checks that the weights
are the same to the bit, and compares steps and CPU time with the limit of 40 %.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

import trainplan as tp
from trainplan import lab
from trainplan.lab.environment import environment

LIMIT = 0.40


def cpu_seconds(plans: list[tp.Plan], *, share: bool) -> tuple[float, lab.Comparison]:
    begin = time.process_time()
    result = lab.compare(
        plans, workload="text", seeds=1, jobs=0, eval_every=10_000, share_prefixes=share
    )
    return time.process_time() - begin, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shortest", type=int, default=50, help="the others are 2 to 8 times it")
    shortest = parser.parse_args().shortest
    lr = tp.schedules.wsd(4e-3, warmup=20, decay="10%", shape="1-sqrt", end=0.0)
    horizons = [shortest * k for k in range(1, 9)]
    plans = [tp.Plan(horizon=n, name=str(n), lr=lr) for n in horizons]
    torch.set_num_threads(1)
    cpu_seconds(plans[:1], share=False)
    alone_seconds, alone = cpu_seconds(plans, share=False)
    shared_seconds, shared = cpu_seconds(plans, share=True)
    for run in alone.runs:
        assert alone.runs[run].weights == shared.runs[run].weights

    here = environment(1)
    print(f"eight horizons of one WSD plan, {horizons[0]} to {horizons[-1]} steps; equal weights")
    print(f"{here['cpu']}, Python {here['python']}, torch {here['torch']}, {here['date']}")
    print(f"{'':<14}{'alone':>10}{'shared':>10}{'ratio':>8}{'limit':>7}")
    rows = {"steps": (alone.steps, shared.steps), "CPU seconds": (alone_seconds, shared_seconds)}
    for name, (before, after) in rows.items():
        print(f"{name:<14}{before:>10.6g}{after:>10.6g}{after / before:>8.3f}{LIMIT:>7.2f}")
    sys.exit(0 if all(after <= LIMIT * before for before, after in rows.values()) else 1)


if __name__ == "__main__":
    main()
