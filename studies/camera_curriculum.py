"""A curriculum over cameras (Lee et al., 2023): should domains join from near to far?

Five cameras see digits turned by 8 to 64 degrees, with noise. A network that was trained on upright
digits goes on with those of the cameras, labelled by itself anew in every epoch.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import trainplan as tp
from trainplan.data import (
    Curriculum,
    DomainCurriculum,
    Shuffle,
    diversity_loss,
    diversity_weights,
    domain_distances,
)
from trainplan.lab import Claim, Study, Tuned

ANGLES, BATCH, PER_EPOCH, SOURCE, TARGET = (8, 22, 36, 50, 64), 50, 15, 500, 750


def data(seed: int):
    """Upright images to train on, and turned ones to adapt to and to test on."""
    random = np.random.default_rng(seed)
    found = load_digits()
    order = random.permutation(len(found.data))
    images, labels = found.images[order] / 16, torch.tensor(found.target[order])
    cameras = random.integers(len(ANGLES), size=len(images))
    cameras[:SOURCE] = -1
    for k, angle in enumerate(ANGLES):
        seen = cameras == k
        images[seen] = rotate(images[seen], angle, axes=(1, 2), reshape=False, order=1)
    noise = random.normal(scale=0.05, size=images.shape) * (cameras >= 0)[:, None, None]
    turned = torch.tensor((images + noise).reshape(-1, 64)).float()
    parts = [slice(SOURCE), slice(SOURCE, SOURCE + TARGET), slice(SOURCE + TARGET, None)]
    return [(turned[part], labels[part], cameras[part]) for part in parts]


def mutual_information(labels, cameras) -> float:
    """Of pseudo-labels and cameras, in nats: how much the labels tell about the camera."""
    table = np.histogram2d(labels, cameras, bins=(np.arange(11), np.arange(len(ANGLES) + 1)))[0]
    joint = table / table.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / apart[filled])).sum())


def measure(
    arm: str,
    seed: int,
    order: str = "near",
    gamma: float = 0.0,
    greedy: bool = False,
    lr: float = 1e-3,
    epochs: int = 30,
    before: int = 60,
) -> dict[str, float]:
    """Accuracy on unseen images of all cameras, and what pseudo-labels tell about the camera."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    (source, answers, _), (target, hidden, cameras), (unseen, truth, _) = data(seed)
    body = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32), nn.ReLU())
    head = nn.Linear(32, 10)
    model = nn.Sequential(body, head)
    upright = Shuffle(SOURCE, BATCH, seed)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def source_loss(step):
        chosen = torch.from_numpy(upright.examples(step, 0, BATCH))
        return cross_entropy(model(source[chosen]), answers[chosen])

    first = before * SOURCE // BATCH
    for step in range(first):
        optimizer.zero_grad()
        source_loss(step).backward()
        optimizer.step()

    @torch.no_grad()
    def distances():
        return domain_distances(body(source), body(target), cameras, kernel="linear", seed=seed)

    found = distances()
    random = np.random.default_rng(seed + 10_000).permutation(len(ANGLES))
    ranks = {
        "near": found,
        "far": {camera: -value for camera, value in found.items()},
        "random": dict(enumerate(random.tolist())),
        "all": found,
    }[order]
    final = epochs if order == "all" else max(1, epochs // 6)
    curriculum = DomainCurriculum(ranks, epochs, final_epochs=final, steps_per_epoch=PER_EPOCH)
    right = curriculum.order == sorted(found)
    course = Curriculum(
        curriculum.difficulty(cameras), curriculum.pacing(), BATCH, seed, by="value"
    )
    optimizer = torch.optim.Adam(model.parameters())
    steps = epochs * PER_EPOCH if lr else 0
    tp.torch.attach(tp.Plan(horizon=max(steps, 1), lr=tp.schedules.constant(lr)), optimizer)
    labels, weights = torch.full((TARGET,), -1), torch.zeros(TARGET)
    for step in range(steps):
        epoch, inside = divmod(step, PER_EPOCH)
        if not inside:
            if greedy and epoch in curriculum.changes()[1:]:
                curriculum.update(epoch, distances())
                course.set_difficulty(curriculum.difficulty(cameras), at=step)
            members = curriculum.members(epoch, cameras)
            with torch.no_grad():
                labels[members] = model(target[members]).argmax(1)
            weights[members] = torch.tensor(
                diversity_weights(labels[members], cameras[members], gamma)
            ).float()
        chosen = torch.from_numpy(course.examples(step, 0, BATCH))
        optimizer.zero_grad()
        loss = diversity_loss(model(target[chosen]), labels[chosen], weights[chosen])
        (loss + source_loss(first + step)).backward()
        optimizer.step()
    with torch.no_grad():
        guesses = model(target).argmax(1)
        accuracy = (model(unseen).argmax(1) == truth).float().mean().item()
    return {
        "accuracy": accuracy,
        "on the target": (guesses == hidden).float().mean().item(),
        "camera bias": mutual_information(guesses.numpy(), cameras),
        "true order": float(right),
    }


RATES = Tuned(3e-4, 1e-3, 3e-3)


def above(arm, than, text, margin=0.0, decides=False, metric="accuracy", direction="higher"):
    """That an arm is at least the margin ahead of another."""
    return Claim(
        text=text,
        arm=arm,
        than=than,
        metric=metric,
        direction=direction,
        margin=margin,
        decides=decides,
    )


STUDY = Study(
    paper="camera-curriculum",
    claim="Opening cameras from near to far beats the reversed order clearly, a random order by "
    "less, and all at once by little",
    arms={
        "near to far": {"lr": RATES},
        "far to near": {"order": "far", "lr": RATES},
        "random order": {"order": "random", "lr": RATES},
        "all at once": {"order": "all", "lr": RATES},
        "near to far, weighted": {"gamma": 1.0, "lr": RATES},
        "near to far, greedy": {"greedy": True, "lr": RATES},
        "source only": {"lr": 0.0},
    },
    measure=measure,
    metric="accuracy",
    direction="higher",
    claims=[
        above("near to far", "far to near", "It beats the reversed order by 0.03", 0.03, True),
        above("near to far", "random order", "It beats a random order", 0.0, True),
        above("near to far", "all at once", "It beats all cameras at once", 0.0, True),
        above("near to far", "source only", "It beats not adapting at all"),
        above(
            "near to far",
            "all at once",
            "Its pseudo-labels tell less about the camera than with all at once",
            metric="camera bias",
            direction="lower",
        ),
        above("near to far, weighted", "near to far", "More weight for classes over cameras helps"),
        above("near to far, greedy", "near to far", "Ranking anew with the current model helps"),
    ],
    seeds=range(16),
    looks=(8, 16),
    shown=["accuracy", "on the target", "camera bias", "true order"],
    budget="30 epochs of 15 steps with 50 images of open cameras and 50 of the source",
    quick={"epochs": 2, "before": 4},
    note="Rotations instead of cameras, and digits instead of people. Pseudo-labels are the "
    "classifier's, since the classes are known; there is no clustering. All arms take as many "
    "steps: an epoch is a number of steps, not a pass. Weights by diversity and the greedy order "
    "are our design, and exploratory. Their rates, too, are tuned.",
)
