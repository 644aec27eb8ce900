"""Workloads as a user would write them, for the tests of the lab."""

from __future__ import annotations

import os
import time

import torch


class Noisy:
    """Linear regression with dropout: its randomness comes from PyTorch's global generator."""

    tokens_per_batch = 4
    knobs = ("dropout",)

    def __init__(self, seed: int, pause: float = 0.0, fail_at: int = -1, explode_at: int = -1):
        self.seed, self.pause, self.fail_at, self.explode_at = seed, pause, fail_at, explode_at
        self.dropout = 0.1
        self.model = torch.nn.Linear(6, 3)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.average = torch.zeros(3, 6)

    def apply(self, values):
        self.dropout = values.get("dropout", self.dropout)

    def batch(self, step):
        if step == self.fail_at:
            raise RuntimeError("the disk is on fire")
        time.sleep(self.pause)
        generator = torch.Generator().manual_seed(1000 * self.seed + step)
        return torch.randn(4, 6, generator=generator) * (1e30 if step == self.explode_at else 1.0)

    def loss(self, batch):
        dropped = torch.nn.functional.dropout(batch, self.dropout)
        with torch.no_grad():
            self.average = 0.9 * self.average + 0.1 * self.model.weight
        return ((self.model(dropped) - batch[:, :3]) ** 2).mean() ** 2

    def evaluate(self):
        probe = torch.ones(1, 6)
        return {
            "loss": (self.model(probe) ** 2).mean().item(),
            "average": self.average.sum().item(),
        }

    def state_dict(self):
        return {"average": self.average}

    def load_state_dict(self, state):
        self.average = state["average"]


def build(seed, pause=0.0, fail_at=-1, explode_at=-1):
    return Noisy(seed, pause, fail_at, explode_at)


class NoPeak:
    """A class without a default peak."""

    def build(self, seed):
        return Noisy(seed)


class Crash:
    """Ends the whole process, as the system does when memory runs out."""

    default_peak = 0.01

    def build(self, seed):
        os.kill(os.getpid(), 9)


def incomplete(seed):
    task = Noisy(seed)
    del task.model
    return task


NOT_CALLABLE = 3
