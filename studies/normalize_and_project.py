"""Normalize-and-Project (Lyle et al., 2024): does a network whose norms are held go on learning?

A small network learns 256 digits whose labels are drawn anew at random, again and again: there is
nothing to carry over, so a task's mean accuracy is how fast it can still learn. All arms have Adam
at a constant rate and the same tries for it. A second experiment, on true labels that stay, asks
what the implicit decay is good for.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import trainplan as tp
from trainplan.lab import Claim, Study, Tuned
from trainplan.optim import (
    EffectiveLRMonitor,
    ImplicitScheduleRecorder,
    NormProjector,
    normalize_and_project,
)

ROWS, WIDTH, STEPS, ENDS = 256, 64, 100, 5
RATES = Tuned(1e-3, 3e-3, 1e-2)


@lru_cache(maxsize=1)
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All images, 1797 x 64, of mean 0 and deviation 1 together, and their labels."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32)
    return (x - x.mean()) / x.std(), torch.tensor(labels)


def network(seed: int, norm: bool) -> tuple[nn.Sequential, NormProjector | None]:
    """Three hidden layers, with or without layer norms before the ReLUs."""
    torch.manual_seed(seed)
    hidden = [part for _ in range(3) for part in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(WIDTH, 10))
    return model, normalize_and_project(model, torch.zeros(1, WIDTH)) if norm else None


def learn(model, optimizer, seed: int, tasks: int) -> dict[str, float]:
    """Mean accuracy over the steps of the first and of the last tasks."""
    random = torch.Generator().manual_seed(seed)
    x = digits()[0][torch.randperm(1797, generator=random)[:ROWS]]
    found = []
    for _ in range(tasks):
        labels = torch.randint(10, (ROWS,), generator=random)
        right = torch.zeros(())
        for _ in range(STEPS):
            optimizer.zero_grad()
            logits = model(x)
            right += (logits.detach().argmax(1) == labels).float().mean()
            cross_entropy(logits, labels).backward()
            optimizer.step()
        found.append(right.item() / STEPS)
    return {"early": sum(found[:ENDS]) / ENDS, "late": sum(found[-ENDS:]) / ENDS}


def measure(arm: str, seed: int, lr=1e-3, l2=0.0, tasks: int = 26, **still) -> dict[str, float]:
    """Accuracies, and the effective rate at the end in units of that at the beginning."""
    torch.set_num_threads(1)
    if still:
        return stay(seed, lr, **still)
    implicit, free = None, {}
    if arm == "NaP at LN's implicit rate":
        model, _ = network(seed, norm=True)
        recorder = ImplicitScheduleRecorder(model, ["0.weight", "2.weight", "4.weight"])
        optimizer = torch.optim.Adam(model.parameters(), lr, fused=True)
        recorder.attach(optimizer)
        free = {"free": learn(model, optimizer, seed, tasks)["late"]}
        implicit = recorder.multipliers(power=1)
    model, projector = network(seed, norm=arm != "plain")
    monitor = EffectiveLRMonitor(model, ["0.weight", "2.weight", "4.weight"])
    groups = projector.param_groups(effective_lr=lr) if implicit else model.parameters()
    optimizer = torch.optim.Adam(groups, lr, weight_decay=l2, fused=True)
    if arm.startswith("NaP"):
        projector.attach(optimizer)
    if implicit:  # for the weights that are held: the head has the constant rate
        curve = tp.schedules.Profile([lr * m for m in implicit], hold=True)
        tp.torch.attach(tp.Plan(horizon=tasks * STEPS, effective_lr=curve), optimizer)
    found = learn(model, optimizer, seed, tasks)
    rates = monitor.read(optimizer).values()
    return {**found, **free, "rate": sum(rates) / len(rates) / lr}


def stay(seed: int, lr: float, hold: bool, cosine: bool, updates: int) -> dict[str, float]:
    """Test loss on true labels after so many updates with batches of 32."""
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(1797, generator=random)
    x, y = (part[order] for part in digits())
    model, projector = network(seed, norm=True)
    optimizer = torch.optim.Adam(model.parameters(), lr, fused=True)
    if hold:
        projector.attach(optimizer)
    curve = tp.schedules.cosine(lr) if cosine else tp.schedules.constant(lr)
    tp.torch.attach(tp.Plan(horizon=updates, lr=curve), optimizer)
    for _ in range(updates):
        rows = torch.randint(1200, (32,), generator=random)
        optimizer.zero_grad()
        cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        return {"loss": cross_entropy(model(x[1200:]), y[1200:]).item()}


def later(than: str, text: str, margin: float, **options) -> Claim:
    """That NaP learns the last tasks faster than another arm."""
    options = {"metric": "late", "direction": "higher", "unit": "accuracy", **options}
    return Claim(text=text, arm="NaP", than=than, margin=margin, **options)


def gap(results) -> float:
    """Minus the distance between the run at LN's implicit rate and the free one it comes from."""
    found = results["NaP at LN's implicit rate"]
    return -abs(found["late"] - found["free"])


STILL = {"lr": 1e-2, "updates": 1500}
STUDY = Study(
    paper="normalize-and-project",
    claim="With labels drawn anew again and again, holding the norms keeps a normalized network "
    "able to learn, each arm at its own best rate",
    arms={
        "NaP": {"lr": RATES},
        "LN": {"lr": RATES},
        "LN + L2": {"lr": RATES, "l2": Tuned(1e-4, 1e-3)},
        "plain": {"lr": RATES},
        "NaP at LN's implicit rate": {"lr": 1e-2},
        "still, LN": {**STILL, "hold": False, "cosine": False},
        "still, NaP": {**STILL, "hold": True, "cosine": False},
        "still, NaP + cosine": {**STILL, "hold": True, "cosine": True},
    },
    measure=measure,
    metric="late",
    direction="higher",
    claims=[
        later("LN", "It learns the last tasks faster than layer norms alone by over 0.05", 0.05),
        later("LN + L2", "It learns them faster than with L2 instead by over 0.05", 0.05),
        later("plain", "It learns them faster than a plain network by over 0.1", 0.1),
        Claim(
            text="With layer norms alone the effective rate falls, by over a tenth",
            arm="LN",
            than=1.0,
            metric="rate",
            margin=0.1,
            unit="of the initial rate",
        ),
        Claim(
            text="Given the joint implicit decay, NaP is at most 0.05 away from layer norms alone",
            name="NaP at LN's implicit rate, distance to LN",
            effect=gap,
            margin=-0.05,
            unit="accuracy",
            decides=False,
        ),
        Claim(
            text="On a task that stays, at one constant rate, layer norms alone end lower",
            arm="still, LN",
            than="still, NaP",
            metric="loss",
            unit="nats",
            decides=False,
        ),
        Claim(
            text="There a cosine more than makes up for it",
            arm="still, NaP + cosine",
            than="still, LN",
            metric="loss",
            unit="nats",
            decides=False,
        ),
    ],
    seeds=range(10, 16),
    looks=(6,),
    shown=["early", "late", "free", "rate", "loss"],
    budget="26 tasks of 100 full-batch steps; 1500 steps of batches of 32 for the task that stays",
    quick={"tasks": 12},
    note="Digits and a small network instead of CIFAR-10 and Atari; 26 tasks instead of 200. L2 "
    "has twice as many tries as the other arms. The comparison at LN's implicit rate and the task "
    "that stays use one rate, 0.01, and decide nothing. A first run, on seeds 0 to 5, gave the "
    "head the implicit rate as well, which was wrong. Its other arms were these: it found L2 as "
    "good as NaP, and the rest of the claims that decide reproduced.",
)
