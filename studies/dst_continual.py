"""Dynamic sparse training for continual learning (Yildirim et al., 2024): does re-wiring pay?

Six tasks one after another: to name digits whose pixels are permuted, in another way for each task.
One network learns all; every task has a sparse mask of its own, and what it used is frozen.
"""

from __future__ import annotations

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import nn

import trainplan as tp
from trainplan.lab import Claim, Study, Tuned
from trainplan.optim import DynamicSparse

TASKS, CLASSES, BATCH = 6, 10, 117
SIZES = {"even": (128, 128), "uneven": (512, 32)}  # hidden layers


@cache
def digits():
    """Images (1797, 64) in [0, 1] and their labels."""
    found = load_digits()
    return torch.tensor(found.data / 16).float(), torch.tensor(found.target)


def tasks(seed):
    """For each task images and labels, to train on (1400) and to test."""
    images, labels = digits()
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=random)
    train, test = order[:1400], order[1400:]
    for _ in range(TASKS):
        shown = images[:, torch.randperm(64, generator=random)]
        yield (shown[train], labels[train]), (shown[test], labels[test])


def logits(model, images, task):
    """Those of the task's classes."""
    return model(images)[:, task * CLASSES : (task + 1) * CLASSES]


def measure(
    arm: str,
    seed: int,
    density: float | None = None,
    lr: float = 1e-2,
    layers: str = "even",
    epochs: int = 20,
    **options,
) -> dict[str, float]:
    """Accuracy over all tasks at the end, what was forgotten, and what is frozen."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    wide, narrow = SIZES[layers]
    model = nn.Sequential(
        *(nn.Linear(64, wide), nn.ReLU(), nn.Linear(wide, narrow), nn.ReLU()),
        nn.Linear(narrow, TASKS * CLASSES),
    )
    sparse = density and DynamicSparse(model, density, seed=seed, **{"every": 10} | options)
    data = list(tasks(seed))
    steps = -(-1400 // BATCH) * epochs
    random = torch.Generator().manual_seed(seed)
    table, at_first, reached = torch.full((TASKS, TASKS), torch.nan), {}, []
    for task, ((images, labels), _) in enumerate(data):
        optimizer = torch.optim.Adam(model.parameters())
        if sparse:
            sparse.attach(optimizer)
            sparse.begin(str(task), steps=steps)
        tp.torch.attach(tp.Plan(horizon=steps, lr=tp.schedules.linear(lr, end="10%")), optimizer)
        for _ in range(epochs):
            for chosen in torch.randperm(1400, generator=random).split(BATCH):
                optimizer.zero_grad()
                found = logits(model, images[chosen], task)
                nn.functional.cross_entropy(found, labels[chosen]).backward()
                optimizer.step()
        if sparse:
            sparse.end()
            reached.append(sparse.density(str(task)))
        for old, (_, (unseen, answers)) in enumerate(data[: task + 1]):
            outputs = of_task(model, sparse, unseen, old)
            table[task, old] = (outputs.argmax(1) == answers).float().mean()
            at_first.setdefault(old, outputs)
    ends = [of_task(model, sparse, test[0], old) for old, (_, test) in enumerate(data)]
    changed = max((end - at_first[old]).abs().max().item() for old, end in enumerate(ends))
    found = tp.continual.transfer(table)
    return {
        "accuracy": found.accuracy,
        "backward": found.average_backward,
        "changed": changed,
        "frozen": sparse.frozen() if sparse else 0.0,
        "density": sum(reached) / len(reached) if reached else 1.0,
    }


@torch.no_grad()
def of_task(model, sparse, images, task):
    """A learned task's outputs."""
    if not sparse:
        return logits(model, images, task)
    with sparse.activated(str(task)):
        return logits(model, images, task)


RATES = Tuned(1e-3, 3e-3, 1e-2, 3e-2)
STATIC, RANDOM, GRADIENT = {"every": 0}, {"grow": "random"}, {"grow": "gradient"}


def above(arm, than, text, margin=0.0, decides=False, metric="accuracy", **options):
    """That an arm is at least the margin above another."""
    return Claim(
        text=text,
        arm=arm,
        than=than,
        metric=metric,
        direction="higher",
        margin=margin,
        decides=decides,
        **options,
    )


STUDY = Study(
    paper="dst-continual",
    claim="With a mask for each task nothing is forgotten, and at low density masks that are "
    "re-wired learn far more than static ones",
    arms={
        "static 5%": {"density": 0.05, "lr": RATES, **STATIC},
        "random 5%": {"density": 0.05, "lr": RATES, **RANDOM},
        "gradient 5%": {"density": 0.05, "lr": RATES, **GRADIENT},
        "one dense network": {"lr": RATES},
        "static 20%": {"density": 0.2, **STATIC},
        "random 20%": {"density": 0.2, **RANDOM},
        "gradient 20%": {"density": 0.2, **GRADIENT},
        "static 50%": {"density": 0.5, **STATIC},
        "gradient 50%": {"density": 0.5, **GRADIENT},
        **{
            f"uneven, {init} {density:.0%}": {
                "density": density,
                "init": init,
                "layers": "uneven",
                **GRADIENT,
            }
            for density in (0.05, 0.5)
            for init in ("erk", "uniform")
        },
    },
    measure=measure,
    metric="accuracy",
    direction="higher",
    claims=[
        Claim(
            text="After all tasks the outputs of every earlier one are those it had, to the bit",
            arm="gradient 5%",
            than=0.0,
            metric="changed",
            margin=-1e-30,
            name="outputs that changed",
        ),
        above("random 5%", "static 5%", "At 5 % density random growth gains 0.05", 0.05, True),
        above("gradient 5%", "static 5%", "At 5 % density gradients gain 0.05", 0.05, True),
        above("gradient 5%", "random 5%", "Growth by gradient is better than by chance at 5 %"),
        above("gradient 20%", "random 20%", "It is at 20 %"),
        above("static 50%", "gradient 50%", "At 50 % the re-wired masks use up the free weights"),
        above("gradient 20%", "one dense network", "One dense network forgets, and ends lower"),
        above("uneven, erk 50%", "uneven, uniform 50%", "At low sparsity ERK beats uniform"),
        above("uneven, uniform 5%", "uneven, erk 5%", "At high sparsity uniform beats ERK"),
    ],
    seeds=range(10),
    looks=(5, 10),
    shown=["accuracy", "backward", "frozen", "density"],
    budget="6 tasks of 240 steps, a network of two hidden layers",
    quick={"epochs": 3},
    note="Biases are each task's own. The two claims on ERK are exploratory: the paper's networks "
    "are convolutional, with layers of very different sizes, here imitated by hidden layers of 512 "
    "and 32 units; both inits reach nearly the same density in all (shown). Growth by gradient "
    "takes no weights of earlier tasks, growth by chance does, as published, so that the two "
    "differ in sharing as well. Only the 5 % arms and the dense network have tuned rates.",
)
