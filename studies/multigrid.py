"""Multigrid training (Wu et al., 2020): as accurate in fewer steps of the same cost?

A blob moves through eight noisy frames in one of four directions, slowly or fast. Multigrid
training takes a third of the steps of an ordinary run, each on as many voxels.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate
from torch.optim.swa_utils import update_bn

import trainplan as tp
from trainplan.data import BatchSampler, MultigridBatches, MultigridSchedule, Shuffle
from trainplan.lab import Claim, Study, Tuned
from trainplan.models import split_batch_norms

FRAMES, SIDE, BATCH, TRAIN, TEST, NOISE = 8, 16, 16, 512, 400, 1.0
STEPS, EPOCHS = [0, 8], 12


def clips(seed: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 1, T, S, S) clips and (N,) classes: direction and speed."""
    random = np.random.default_rng(seed)
    labels = random.integers(8, size=number)
    angle, speed = labels % 4 * np.pi / 2, np.where(labels < 4, 0.6, 1.5)
    moved = speed[:, None] * (np.arange(FRAMES) - (FRAMES - 1) / 2)
    centre = random.uniform(6, 9, (number, 2))
    grid = np.arange(SIDE)
    row = centre[:, :1] + moved * np.sin(angle)[:, None]
    column = centre[:, 1:] + moved * np.cos(angle)[:, None]
    up = np.exp(-((grid - row[..., None]) ** 2) / 4.5)
    across = np.exp(-((grid - column[..., None]) ** 2) / 4.5)
    video = up[..., :, None] * across[..., None, :]
    noisy = video + random.normal(scale=NOISE, size=video.shape)
    return torch.tensor(noisy[:, None]).float(), torch.tensor(labels)


def coarser(video: torch.Tensor, frames: int, crop: int) -> torch.Tensor:
    """Clips of fewer frames and pixels that show the same time and field of view."""
    # No random stride: it would change the speed, which is part of the class.
    video = video[:, :, torch.arange(frames) * FRAMES // frames]
    return video if crop == SIDE else interpolate(video, (frames, crop, crop), mode="area")


def network() -> nn.Sequential:
    """Three convolutions over space and time."""
    layers: list[nn.Module] = []
    for before, after, stride in ((1, 8, 1), (8, 16, 2), (16, 32, 2)):
        kernel = nn.Conv3d(before, after, 3, (1, stride, stride), 1, bias=False)
        layers += [kernel, nn.BatchNorm3d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, 8))


def measure(
    arm: str,
    seed: int,
    lr: float = 0.05,
    multigrid: bool = False,
    share: float = 1.0,
    epochs: int = EPOCHS,
    number: int = TRAIN,
) -> dict[str, float]:
    """Accuracy on unseen clips, and what training took."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    video, labels = clips(2 * seed, number)
    unseen, truth = clips(2 * seed + 1, TEST)
    model = network()
    edge = epochs * STEPS[1] // EPOCHS
    if multigrid:
        grid = MultigridSchedule.from_step_schedule([0, edge], epochs, crop=SIDE, frames=FRAMES)
        source = MultigridBatches(Shuffle(number, BATCH, seed), grid)
        steps, rate = source.steps, source.lr(lr, warmup=grid.epochs / 12, start=lr / 10)
    else:
        source = Shuffle(number, BATCH, seed)
        steps = round(share * epochs * number / BATCH)
        rate = tp.schedules.step(lr, at=[edge / epochs * steps], factor=0.1, warmup=steps // 12)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4)
    tp.torch.attach(tp.Plan(horizon=steps, lr=rate), optimizer)
    shape = None if multigrid else {"crop": SIDE, "frames": FRAMES}
    sampler = BatchSampler(source, shape=shape)
    voxels, seen, began = 0, 0, time.process_time()
    for step in range(steps):
        batch = sampler.batch(step)
        if multigrid and step in source.starts:
            phase = source.phase_at(step)
            split_batch_norms(model, grid.normalisation(phase, BATCH, base=BATCH).splits)
        chosen = torch.from_numpy(batch.indices)
        x = coarser(video[chosen], **batch.shape)
        optimizer.zero_grad()
        cross_entropy(model(x), labels[chosen]).backward()
        optimizer.step()
        voxels, seen = voxels + x.numel(), seen + len(chosen)
    # Statistics of clips at full size, in all arms alike.
    split_batch_norms(model, 1)
    update_bn(video.split(128), model)
    seconds = time.process_time() - began
    with torch.no_grad():
        accuracy = (model.eval()(unseen).argmax(1) == truth).float().mean().item()
    return {
        "accuracy": accuracy,
        "seconds": seconds,
        "steps": float(steps),
        "clips": float(seen),
        "megavoxels": voxels / 1e6,
    }


def saved(results) -> float:
    """Share of the ordinary run's processor time that multigrid training does not need."""
    return 1 - results["multigrid"]["seconds"] / results["ordinary"]["seconds"]


RATES = Tuned(0.1, 0.2, 0.4)


STUDY = Study(
    paper="multigrid",
    claim="Multigrid training is as accurate as ordinary training, within 3 points, in at most 0.7 "
    "of its time",
    arms={
        "ordinary": {"lr": RATES},
        "multigrid": {"multigrid": True, "lr": RATES},
        "ordinary, a third": {"share": 1 / 3, "lr": RATES},
    },
    measure=measure,
    metric="accuracy",
    direction="higher",
    claims=[
        Claim(
            text="Multigrid training is at most 0.03 less accurate than ordinary training",
            arm="multigrid",
            than="ordinary",
            metric="accuracy",
            direction="higher",
            margin=-0.03,
            name="parity",
        ),
        Claim(
            text="It saves at least 0.3 of the processor's time",
            effect=saved,
            margin=0.3,
            name="time",
            unit="of the ordinary run",
        ),
        Claim(
            text="It is more accurate than an ordinary run of as many steps",
            arm="multigrid",
            than="ordinary, a third",
            metric="accuracy",
            direction="higher",
            decides=False,
            name="equal cost",
        ),
    ],
    seeds=range(8),
    looks=(4, 8),
    shown=["accuracy", "seconds", "steps", "clips", "megavoxels"],
    budget="12 epochs of 512 clips in batches of 16, or 18 under multigrid; every step has the "
    "voxels of 16 whole clips",
    quick={"epochs": 2, "number": 32},
    note="Made-up clips of 16 x 16 pixels instead of Kinetics, and seconds on one core, whose "
    "load others share. Coarse clips show every k-th frame from the first on, with no random "
    "stride, since the speed is part of the class. Statistics of normalisation are taken anew from "
    "whole clips at the end, in all arms.",
)
