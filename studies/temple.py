"""TEMPLE (Li et al., 2025): easy preference pairs first, and preferences before fine-tuning?

A small decoder reads 16 events and lists them in order. It has learned that a little, from lists in
which the order is often wrong. Pairs are lists of the true order against disturbed ones.
"""

from __future__ import annotations

import copy
from functools import lru_cache

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import trainplan as tp
from trainplan.data import ProgressivePreferenceSchedule, block_shuffle, inversions
from trainplan.data.perturbations import PERTURBATIONS
from trainplan.lab import Claim, Study, Tuned
from trainplan.models import Decoder, answer_log_probability, preference_loss

N, EVENTS, BATCH, FACTORS = 16, 24, 16, (16, 8, 4, 2)
ASK, END, PAD, LR = EVENTS, EVENTS + 1, EVENTS + 2, 2e-3


def sequences(number: int, random) -> np.ndarray:
    """(number, N) different events."""
    return np.argsort(random.random((number, EVENTS)), axis=1)[:, :N]


def texts(events: np.ndarray, orders: list) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 2 N + 2) events, a mark, and a list of them in an order; and labels of the list."""
    tokens = np.full((len(events), 2 * N + 2), PAD)
    tokens[:, :N], tokens[:, N] = events, ASK
    for row, order in enumerate(orders):
        tokens[row, N + 1 : N + 2 + len(order)] = [*events[row][list(order)], END]
    lengths = [N + 2 + len(order) for order in orders]
    labels = tp.data.completion_labels(tokens, [N + 1] * len(events), lengths)
    return torch.from_numpy(tokens), torch.from_numpy(labels)


def disturbed(number: int, r: int, random, kinds=tuple(PERTURBATIONS)) -> list:
    """Orders, of each kind in turn."""
    return [PERTURBATIONS[kinds[i % len(kinds)]](range(N), r, random) for i in range(number)]


def pairs_of(number: int, r: int, random):
    """Lists in order, and disturbed ones of the same events."""
    events = sequences(number, random)
    return texts(events, [range(N)] * number), texts(events, disturbed(number, r, random))


def log_probabilities(model, pairs, which=slice(None)) -> torch.Tensor:
    """(B, 2) of the lists in order and of the others."""
    tokens, labels = (torch.cat([text[k][which] for text in pairs]) for k in (0, 1))
    return answer_log_probability(model(tokens), labels).view(2, -1).T


def fine_tune(model, steps: int, lr: float, random, wrong: float = 0.0) -> None:
    """Supervised steps on lists; so many of them in a disturbed order."""
    optimizer = torch.optim.Adam(model.parameters())
    rates = tp.schedules.cosine(lr, warmup="5%")
    tp.torch.attach(tp.Plan(horizon=steps, lr=rates), optimizer)
    for _ in range(steps):
        draws = zip(random.random(BATCH), random.choice(FACTORS, BATCH), strict=True)
        orders = [block_shuffle(range(N), r, random) if u < wrong else range(N) for u, r in draws]
        tokens, labels = texts(sequences(BATCH, random), orders)
        optimizer.zero_grad()
        logits = model(tokens)[:, :-1]
        cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten()).backward()
        optimizer.step()


def prefer(model, schedule: ProgressivePreferenceSchedule, pairs: dict) -> None:
    """All stages, each with the model that it starts from as its reference."""
    for k, source in enumerate(schedule.sources):
        own, optimizer = pairs[schedule.factors[k]], torch.optim.Adam(model.parameters())
        tp.torch.attach(schedule.plan(k), optimizer)
        with torch.no_grad():
            reference = log_probabilities(model, own)
        for batch in tp.data.BatchSampler(source):
            rows = torch.from_numpy(batch.indices)
            optimizer.zero_grad()
            preference_loss(log_probabilities(model, own, rows), reference[rows]).mean().backward()
            optimizer.step()


@lru_cache(maxsize=2)
def beginner(seed: int, steps: int) -> Decoder:
    """A model that has read some lists, a fifth of them in a wrong order."""
    torch.manual_seed(seed)
    model = Decoder(vocabulary=EVENTS + 3, context=2 * N + 2, width=64, layers=2, heads=4)
    fine_tune(model, steps, LR, np.random.default_rng((seed, 2)), wrong=0.2)
    return model


@torch.no_grad()
def tau(model, events: np.ndarray) -> float:
    """Kendall's tau of generated lists; a pair of which one event is missing counts 0."""
    tokens = torch.from_numpy(np.c_[events, np.full(len(events), ASK)])
    for _ in range(N):
        tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(2)], 1)
    found, pairs = 0.0, N * (N - 1) / 2
    for truth, said in zip(events.tolist(), tokens[:, N + 1 :].tolist(), strict=True):
        listed = said[: [*said, END].index(END)]
        order = [truth.index(event) for event in dict.fromkeys(listed) if event in truth]
        found += len(order) * (len(order) - 1) / 2 - 2 * inversions(order)
    return found / pairs / len(events)


@torch.no_grad()
def accuracy(model, pairs) -> float:
    """How often the list in order is the likelier one, in percent."""
    right, wrong = log_probabilities(model, pairs).T
    return 100 * (right > wrong).float().mean().item()


def measure(
    arm: str, seed: int, order: str, dpo_lr: float = 1e-3,
    warm: int = 300, per_stage: int = 160, sft: int = 120,
) -> dict[str, float]:  # fmt: skip
    """Accuracy on the hardest pairs after half of the steps, and the order of lists at the end."""
    torch.set_num_threads(1)
    random, held_out = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    model = copy.deepcopy(beginner(seed, warm))
    hardest, asked = pairs_of(300, 2, held_out), sequences(128, held_out)
    preferring = len(FACTORS) * per_stage // BATCH
    pairs = {r: pairs_of(per_stage, r, random) for r in FACTORS}
    stages = FACTORS[::-1] if order == "reversed" else FACTORS
    if order == "mixed":
        sides = [[pairs[r][side] for r in FACTORS] for side in (0, 1)]
        pairs = {1: [[torch.cat(part) for part in zip(*side, strict=True)] for side in sides]}
        stages = (1,)
    sizes = {r: len(pairs[r][0][0]) for r in stages}
    options = {"batch_size": BATCH, "peak_lr": dpo_lr, "seed": seed}
    schedule = ProgressivePreferenceSchedule(sizes, stages, **options)
    before, found = accuracy(model, hardest), None
    if order not in ("none", "after"):
        prefer(model, schedule, pairs)
        found = accuracy(model, hardest)
    fine_tune(model, sft + (preferring if order == "none" else 0), LR, random)
    if order == "after":
        prefer(model, schedule, pairs)
    moved = [disturbed(100, r, held_out, ("reverse", "shuffle")) for r in FACTORS]
    distances = np.array([[tp.data.perturbation_distance(o, N) for o in row] for row in moved])
    return {
        "before": before,
        "accuracy": accuracy(model, hardest) if found is None else found,
        "tau": tau(model, asked),
        "growth": -np.diff(distances.mean(axis=1)).max(),
    }


RATES = Tuned(5e-4, 2e-3)


def easy_first(than: str, text: str, metric: str = "accuracy", margin=0.0, decides=False) -> Claim:
    """That easy pairs first is ahead of another arm."""
    given = {"metric": metric, "direction": "higher", "margin": margin, "decides": decides}
    unit = "points" if metric == "accuracy" else "Kendall's tau"
    text = f"Easy first {text} than {than}"
    return Claim(text=text, arm="easy first", than=than, unit=unit, **given)


STUDY = Study(
    paper="temple",
    claim="Finer shuffling is further from the true order, and easy-to-hard stages beat the "
    "reversed order on the hardest pairs",
    arms={
        "easy first": {"order": "easy first", "dpo_lr": RATES},
        "hard first": {"order": "reversed", "dpo_lr": RATES},
        "mixed": {"order": "mixed", "dpo_lr": RATES},
        "fine-tuning first": {"order": "after", "dpo_lr": RATES},
        "fine-tuning only": {"order": "none"},
    },
    measure=measure,
    metric="accuracy",
    direction="higher",
    claims=[
        Claim(
            text="The mean distance of reversed and shuffled orders grows with every factor",
            **{"arm": "easy first", "than": 0.0, "metric": "growth", "direction": "higher"},
        ),
        easy_first(
            "hard first", "is more accurate on pairs of factor 2 after the stages", decides=True
        ),
        easy_first("mixed", "is at most 2 points less accurate on them", margin=-2.0),
        easy_first("fine-tuning only", "lists in better order at the end", "tau"),
        easy_first("fine-tuning first", "lists in better order at the end", "tau"),
    ],
    seeds=range(6),
    shown=["before", "accuracy", "tau", "growth"],
    budget="300 steps of 16 lists to begin with, then 40 of preferences and 120 of fine-tuning in "
    "each arm (160 of fine-tuning alone); 2 layers of width 64",
    quick={"warm": 20, "per_stage": 32, "sft": 10},
    note="Lists of 16 of 24 symbols by a perfect describer stand for captions of clips, and are "
    "not sampled from the model. Fine-tuning has one rate in all arms, that of the beginning. "
    "Accuracy is read after the stages, in arms without stages before fine-tuning at the end.",
)
