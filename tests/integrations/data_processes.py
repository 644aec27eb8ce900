"""What each process does for test_data_processes.py: read, write down, and keep a state."""

import json
import os
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

import trainplan as tp


class Numbers(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return i


class Ability:
    """Opens more the better the mean reward."""

    def __init__(self):
        self.level = 0.25

    def value(self, t):
        return self.level

    def observe(self, t, **signals):
        tally = signals["reward"]
        self.level = min(1.0, self.level + sum(tally.sums) / sum(tally.counts) / 16)

    def state_dict(self):
        return {"level": self.level}

    def load_state_dict(self, state):
        self.level = state["level"]


def report(sampler, step, examples):
    """Rewards that add up exactly in any order."""
    if sampler.source.lag is not None:
        rewards = [(i * 37 % 9) / 8 for i in examples]
        sampler.source.pacing.observe(step, reward=(examples, rewards))


def source(kind):
    hard = [(7 * i) % 200 for i in range(200)]
    if kind == "listening":
        return tp.data.Curriculum(hard, tp.data.Feedback(Ability(), 2, keys=200, check_every=1), 24)
    if kind == "shuffle":
        return tp.data.Shuffle(200, 24, seed=1)
    if kind == "curriculum":
        return tp.data.Curriculum(hard, tp.data.pacing("root", 0.2, full_at=20), 24)
    weights = {"a": tp.schedules.linear(1.0, 0.2, duration=30), "b": 0.5}
    return tp.data.Mixture({"a": 60, "b": 140}, weights, 24)


def main(folder, kind, steps, workers, accumulation, pause):
    steps, workers, accumulation = int(steps), int(workers), int(accumulation)
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    sampler = tp.data.BatchSampler(source(kind), accumulation=accumulation)
    file = Path(folder) / f"rank-{sampler.rank}.json"
    saved = json.loads(file.read_text()) if file.exists() else {"seen": [], "state": None}
    if (Path(folder) / "state.json").exists():
        saved["state"] = json.loads((Path(folder) / "state.json").read_text())
    if saved["state"]:
        sampler.load_state_dict(saved["state"])
    begin = sampler.step  # workers draw ahead as soon as the loader is iterated
    batches = iter(DataLoader(Numbers(200), batch_sampler=sampler, num_workers=workers))
    for step in range(begin, steps):
        saved["seen"].append([next(batches).tolist() for _ in range(accumulation)])
        report(sampler, step, [i for batch in saved["seen"][-1] for i in batch])
        saved["state"] = sampler.state_dict(step=step + 1)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(saved))
        part.replace(file)
        time.sleep(float(pause))
    if "RANK" in os.environ:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
