"""Curriculum designer (Singh et al., 2023): does its score tell good orders of classes from bad?

Five digits are learned one class after another, each image once, in all 120 orders. Beside each
batch of the new class some images of earlier classes are replayed, of which five each are kept.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import trainplan as tp
from trainplan.data import CurriculumDesigner, order_agreement
from trainplan.lab import Claim, Study

CLASSES, EACH, BATCH, KEPT, HIDDEN, RATE, MOMENTUM = 5, 120, 10, 5, 64, 0.01, 0.9
ORDERS = np.array(list(itertools.permutations(range(CLASSES))))


@cache
def digits():
    """Images (1797, 64) in [0, 1] and their labels."""
    found = load_digits()
    return found.data / 16, found.target


def split(names, random):
    """(5, 120, 64) images to train on, class by class, and the others with their classes."""
    images, labels = digits()
    rows = [random.permutation(np.flatnonzero(labels == name)) for name in names]
    train = torch.tensor(np.stack([images[found[:EACH]] for found in rows])).float()
    test = torch.tensor(np.concatenate([images[found[EACH:]] for found in rows])).float()
    return train, test, torch.tensor(np.repeat(range(CLASSES), [len(r) - EACH for r in rows]))


def learn(names, seed: int, replay: int, orders):
    """Accuracies of networks that learn in different orders, all from one start.

    Returns:
        (m,) over all classes at the end, (m,) on the first class when learned, and at the end.
    """
    random = np.random.default_rng(seed)
    train, test, answers = split(names, random)
    generator = torch.Generator().manual_seed(seed)
    order = torch.from_numpy(orders)
    sizes = [(64, HIDDEN), (1, HIDDEN), (HIDDEN, CLASSES), (1, CLASSES)]
    bounds = [1 / 8, 1 / 8, HIDDEN**-0.5, HIDDEN**-0.5]
    # As many copies of one network as there are orders, trained side by side.
    weights = [
        ((2 * torch.rand(size, generator=generator) - 1) * bound)
        .expand(len(order), *size)
        .clone()
        .requires_grad_()
        for size, bound in zip(sizes, bounds, strict=True)
    ]

    def logits(images):
        hidden = torch.baddbmm(weights[1], images, weights[0]).relu()
        return torch.baddbmm(weights[3], hidden, weights[2])

    @torch.no_grad()
    def right():
        return logits(test.expand(len(order), -1, -1)).argmax(2) == answers

    # The sum over networks: none sees the others' gradients, and each has the mean over its batch.
    optimizer = torch.optim.SGD(weights, RATE, momentum=MOMENTUM)
    first = answers == order[:, :1]
    learned = torch.zeros(len(order))
    for task in range(CLASSES):
        for begin in range(0, EACH, BATCH):
            new = order[:, task]
            shown, marks = train[new, begin : begin + BATCH], new[:, None].expand(-1, BATCH)
            if task and replay:
                # The same places for all orders, so that only the order differs.
                which = torch.randint(task, (replay,), generator=generator)
                kept = torch.randint(KEPT, (replay,), generator=generator)
                old = order[:, which]
                shown = torch.cat([shown, train[old, kept.expand_as(old)]], 1)
                marks = torch.cat([marks, old], 1)
            optimizer.zero_grad()
            loss = cross_entropy(logits(shown).flatten(0, 1), marks.flatten(), reduction="sum")
            (loss / marks.shape[1]).backward()
            optimizer.step()
        if not task:
            learned = (right() & first).sum(1) / first.sum(1)
    last = right()
    kept_first = (last & first).sum(1) / first.sum(1)
    return [found.double().numpy() for found in (last.float().mean(1), learned, kept_first)]


def rate(names, seed: int, replay: int, runs: int, orders=ORDERS) -> dict[str, float]:
    """How far the designer's score and simpler ones agree with how orders turn out."""
    torch.set_num_threads(1)
    images, labels = digits()
    chosen = np.isin(labels, names)
    designer = CurriculumDesigner.of(images[chosen], labels[chosen])
    found = [learn(sorted(names), 1000 * seed + run, replay, orders) for run in range(runs)]
    outcome = tp.continual.retention(*np.mean(found, axis=0))
    halves = [tp.continual.retention(*np.mean(found[k::2], axis=0)) for k in (0, 1)]
    named = np.asarray(designer.classes)[orders]
    scores = designer.scores(named)
    agreement = order_agreement(scores, outcome, permutations=1999, seed=seed)
    simpler = {
        "central first": -designer.shares[orders[:, 0]],
        "near next": -designer.rows[orders[:, :-1], orders[:, 1:]].sum(1),
    }
    best = scores >= np.sort(scores)[-round(len(scores) / 4)]
    return {
        "rho": agreement.rho,
        "p": agreement.p_value,
        "F": float(outcome.mean()),
        "spread of F": float(outcome.std()),
        "gain of the top quarter": float(outcome[best].mean() - outcome[~best].mean()),
        "between runs": order_agreement(*halves, permutations=1).rho,
    } | {name: order_agreement(x, outcome, permutations=1).rho for name, x in simpler.items()}


SETS = {"0 to 4": (0, 1, 2, 3, 4), "5 to 9": (5, 6, 7, 8, 9)}


def measure_all(seed: int, runs: int = 5, orders: int = len(ORDERS)) -> dict[str, dict[str, float]]:
    """Each set of digits with much, little and no replay; and five digits at random."""
    some = ORDERS[np.linspace(0, len(ORDERS) - 1, orders).round().astype(int)]
    found = {
        f"{name}, replay {replay}": rate(digits_, seed, replay, runs, some)
        for name, digits_ in SETS.items()
        for replay in (10, 2, 0)
    }
    chosen = np.random.default_rng(seed).choice(10, CLASSES, replace=False)
    return found | {"any five, replay 10": rate(chosen.tolist(), seed, 10, runs, some)}


def claim(arm, text, margin=0.0, decides=False, than=0.0, direction="higher", metric="rho", **rest):
    """That a measurement of an arm is ahead of a number, or of another measurement."""
    return Claim(
        text=text,
        arm=arm,
        than=than,
        metric=metric,
        direction=direction,
        margin=margin,
        decides=decides,
        **rest,
    )


def beyond(arm, other, text):
    """That the score agrees better with the outcome than a simpler rule does."""
    return claim(arm, text, than=arm, than_metric=other, name=f"{arm}: score against {other}")


MUCH = [f"{name}, replay 10" for name in SETS]
NONE = [f"{name}, replay 0" for name in SETS]

STUDY = Study(
    paper="curriculum-designer",
    claim="With replay the designer's score correlates positively, if modestly, with how well an "
    "order turns out; without replay it does not",
    arms=[*(f"{n}, replay {r}" for n in SETS for r in (10, 2, 0)), "any five, replay 10"],
    measure_all=measure_all,
    metric="rho",
    direction="higher",
    claims=[
        *(claim(arm, f"Digits {arm}: the correlation is above 0.1", 0.1, True) for arm in MUCH),
        *(
            claim(arm, f"Digits {arm}: it is below 0.1", 0.0, True, than=0.1, direction="lower")
            for arm in NONE
        ),
        claim("any five, replay 10", "Any five digits, replay 10: it is above 0"),
        *(
            claim(
                arm,
                f"Digits {arm}: outcomes of other runs agree by 0.2",
                0.2,
                metric="between runs",
            )
            for arm in (*MUCH, *NONE)
        ),
        *(
            beyond(arm, other, f"Digits {arm}: the score agrees better than {other!r} alone")
            for arm in MUCH
            for other in ("central first", "near next")
        ),
    ],
    seeds=range(16),
    looks=(8, 16),
    shown=["rho", "p", "F", "spread of F", "between runs", "gain of the top quarter"],
    budget="all 120 orders of 5 classes, 5 runs each with another split and start; 600 images once",
    quick={"runs": 2, "orders": 12},
    note="A seed is five runs, over which accuracies are averaged before the outcome is computed. "
    "Within a run all orders share start, images and places of replay. Distances are between mean "
    "images, over all of a class. 'between runs' compares the mean of three runs with that of two. "
    "Rates are fixed, as they are no part of the claim: no order is tuned for.",
)
