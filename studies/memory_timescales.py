"""Emergent timescales (Khajehabdollahi et al., 2023): keep the earlier spans, or replace them?

A leaky recurrent network learns the parity of the last N bits. Whenever it has mastered N, the next
one comes: in its place, or beside it with a read-out of its own.
"""

from __future__ import annotations

import torch
from torch import nn

import trainplan as tp
from trainplan.data import HorizonCurriculum, MemoryTask
from trainplan.lab import Claim, Study, Tuned
from trainplan.models import LeakyRNN, accuracies, summed_loss

HIDDEN, MOST, EVERY = 64, 24, 50


def tensors(batch):
    """A batch for PyTorch."""
    bits, labels = batch
    return torch.from_numpy(bits), {n: torch.from_numpy(values) for n, values in labels.items()}


def measure(
    arm: str, seed: int, mode: str, lr: float = 4e-3, start: int = 2, steps: int = 2000
) -> dict[str, float]:
    """The largest N mastered, accuracy on the N before it, and the mean time constant."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    # One read-out for all N if each replaces the one before.
    heads = [0] if mode == "single" else range(2, MOST + 1)
    model = LeakyRNN(hidden=HIDDEN, heads=heads)
    before = model.time_constants().mean().item()
    task, fresh = MemoryTask("parity", 64, seed), MemoryTask("parity", 128, seed + 1_000_000)
    curriculum = HorizonCurriculum(mode, start, most=MOST)
    optimizer = torch.optim.Adam(model.parameters())
    tp.torch.attach(tp.Plan(horizon=steps, lr=tp.schedules.constant(lr)), optimizer)

    def answers(bits, names):
        if mode != "single":
            return model(bits, names)
        logits = model(bits)[0]
        return dict.fromkeys(names, logits)

    @torch.no_grad()
    def test(names, first, number=8):
        found = []
        for k in range(number):
            bits, labels = tensors(fresh.batch(first + k, names))
            found.append(accuracies(answers(bits, names), labels))
        return {n: sum(row[n] for row in found) / number for n in names}

    reached, since = 1, {}
    for step in range(1, steps + 1):
        bits, labels = tensors(task.batch(step, curriculum.active))
        optimizer.zero_grad()
        summed_loss(answers(bits, curriculum.active), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        if step % EVERY == 0:
            now = curriculum.largest
            if curriculum.update(test(curriculum.active, 8 * step)) or curriculum.solved:
                reached = now
                since.setdefault(now, step)
    earlier = list(range(2, max(reached - 1, 3)))
    kept = test(earlier, 8 * (steps + 1), 16)
    return {
        "largest N": float(reached),
        "kept": sum(kept.values()) / len(kept),
        "tau": model.time_constants().mean().item() - before,
        "steps to 4": float(since.get(4, steps)),
    }


RATES = Tuned(2e-3, 4e-3, 8e-3)


STUDY = Study(
    paper="memory-timescales",
    claim="Keeping the earlier spans reaches memories at least as long in the same steps and stays "
    "accurate on the short ones, while replacing them forgets the short ones",
    arms={
        "keep": {"mode": "cumulative", "lr": RATES},
        "replace": {"mode": "single", "lr": RATES},
        "8 at once": {"mode": "fixed", "start": 8, "lr": RATES},
    },
    measure=measure,
    metric="largest N",
    direction="higher",
    claims=[
        Claim(
            text="With spans that replace each other, accuracy on N from 2 to two below the "
            "largest is below 0.75",
            arm="replace",
            than=0.75,
            metric="kept",
            name="forgetting, spans replaced",
        ),
        Claim(
            text="With spans that are kept it is above 0.9",
            arm="keep",
            than=0.9,
            metric="kept",
            direction="higher",
            name="forgetting, spans kept",
        ),
        Claim(
            text="The largest N mastered is not smaller when the earlier spans are kept",
            arm="keep",
            than="replace",
            metric="largest N",
            direction="higher",
            margin=-0.5,
            unit="N",
        ),
        Claim(
            text="Time constants grow less when the earlier spans are kept",
            arm="keep",
            than="replace",
            metric="tau",
            decides=False,
            unit="steps, change of the mean",
        ),
        Claim(
            text="With a curriculum that keeps spans a larger N is mastered than N = 8 at once",
            arm="keep",
            than="8 at once",
            metric="largest N",
            direction="higher",
            decides=False,
            unit="N",
        ),
    ],
    seeds=range(10),
    looks=(5, 10),
    shown=["largest N", "kept", "tau", "steps to 4"],
    budget="2000 steps of 64 sequences for each arm, 64 units",
    quick={"steps": 300},
    note="Adam and 64 units instead of the paper's SGD and 500 units, and minutes instead of days: "
    "N stays far below the paper's 35 and 100. With one read-out, earlier N are asked of that one. "
    "Where nothing is mastered, the largest N counts as 1, and accuracy is that of N = 2 alone.",
)
