"""VFIMamba (Zhang et al., 2024): raise large motion by stages, beside small motion throughout?

A small network interpolates between two frames of a textured blob that moves by a pixel per frame,
so that the gap is the motion in pixels. All arms read the same clips.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import trainplan as tp
from trainplan.data import BatchSampler, Mixture, MotionCurriculum, Stage, Triplets, motion_triplets
from trainplan.lab import Claim, Study, Tuned

SIDE, FRAMES, BATCH, PER_STAGE = 24, 13, 16, 60
CURRICULUM = MotionCurriculum(6, 1, SIDE, SIDE, start_gap=2, gap_step=2, max_gap=12)
SMALL, *_, LARGEST = GAPS = ["small", *(motion.name for motion in CURRICULUM.stages)]
TESTED = (2, 6, 12)


@lru_cache(maxsize=4)
def clips(number: int, seed: int) -> np.ndarray:
    """(number, 13, 1, 24, 24) blobs with stripes of their own, crossing the frame's middle."""
    random = np.random.default_rng((seed, number))

    def drawn(low, high):
        return random.uniform(low, high, (number, 1, 1, 1))

    way, stripes = drawn(0, 2 * np.pi), drawn(0, np.pi)
    frequency, phase, wide = drawn(0.4, 0.8), drawn(0, 2 * np.pi), drawn(2.0, 3.0)
    time = np.arange(FRAMES)[None, :, None, None] - FRAMES // 2
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    y = y - drawn(-2, 2) - time * np.sin(way)
    x = x - drawn(-2, 2) - time * np.cos(way)
    texture = 0.7 + 0.3 * np.cos(frequency * (np.cos(stripes) * x + np.sin(stripes) * y) + phase)
    return (texture * np.exp(-(x**2 + y**2) / (2 * wide**2)))[:, :, None].astype(np.float32)


class Interpolation(nn.Module):
    """Six convolutions that see 19 x 19 pixels, and add to the mean of the two frames."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for k, dilation in enumerate((1, 1, 2, 2, 2)):
            layers += [nn.Conv2d(width if k else 2, width, 3, 1, dilation, dilation), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, first, last):
        """(B, 1, H, W) the frame between two such."""
        return (first + last) / 2 + self.layers(torch.cat([first, last], dim=1))


def measure(
    arm: str,
    seed: int,
    weights: object,
    lr: float = 8e-3,
    steps: int = 6 * PER_STAGE,
    number: int = 400,
) -> dict[str, float]:
    """PSNR in dB at motions of 2, 6 and 12 pixels, and their mean."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    small, large = clips(number, seed), clips(2 * number, seed)
    data = motion_triplets(CURRICULUM, small, large, augment=False)
    model = Interpolation()
    optimizer = torch.optim.Adam(model.parameters())
    plan = tp.Plan(horizon=steps, lr=tp.schedules.cosine(lr, warmup="5%"))
    tp.torch.attach(plan, optimizer)
    sampler = BatchSampler(Mixture(data.sizes, weights, BATCH, seed, steps=steps))
    for batch in sampler:
        first, target, last = torch.stack(data.__getitems__(batch)).unbind(1)
        optimizer.zero_grad()
        functional.l1_loss(model(first, last), target).backward()
        optimizer.step()
    fresh = clips(number // 2, seed + 1_000_000)
    found = {f"at {gap} px": psnr(model, Triplets(fresh, gap)) for gap in TESTED}
    return found | {"PSNR": sum(found.values()) / len(found)}


@torch.no_grad()
def psnr(model: nn.Module, triplets: Triplets) -> float:
    """In dB over a triplet of every clip."""
    places = np.linspace(0, len(triplets) - 1, len(triplets.clips)).astype(int)
    first, target, last = torch.stack(triplets.__getitems__(places)).unbind(1)
    return -10 * functional.mse_loss(model(first, last), target).log10().item()


RATES = Tuned(4e-3, 8e-3, 1.6e-2)
half = 3 * PER_STAGE
WEIGHTS = {
    "curriculum": CURRICULUM.weights(PER_STAGE),
    "small, then large": [Stage(half, {SMALL: 1}), Stage(half, {LARGEST: 1})],
    "small and largest mixed": [Stage(2 * half, {SMALL: 1, LARGEST: 1})],
    "all motions mixed": [Stage(2 * half, dict.fromkeys(GAPS[1:], 1))],
    "the curriculum's, shuffled": [Stage(2 * half, {SMALL: 6, **dict.fromkeys(GAPS[1:], 1)})],
    "small only": [Stage(2 * half, {SMALL: 1})],
}


def ahead(than: str, metric: str, margin: float = 0.0, decides: bool = False) -> Claim:
    """That the curriculum is ahead of an arm."""
    return Claim(
        text=f"The curriculum has a higher PSNR {metric.replace('PSNR', 'on average')} "
        f"than {than}" + (f", by more than {margin:g} dB" if margin else ""),
        arm="curriculum",
        than=than,
        metric=metric,
        direction="higher",
        margin=margin,
        unit="dB",
        decides=decides,
        name=f"{metric}, against {than}",
    )


STUDY = Study(
    paper="vfimamba",
    claim="Training on small motion and then on large motion forgets the small; showing small "
    "motion throughout while the large rises keeps more of it, and does better in between than a "
    "mixture of small and largest",
    arms={name: {"weights": weights, "lr": RATES} for name, weights in WEIGHTS.items()},
    measure=measure,
    metric="PSNR",
    direction="higher",
    claims=[
        Claim(
            text="Small, then large motion loses more than 10 dB at 2 px against small alone",
            arm="small only",
            than="small, then large",
            metric="at 2 px",
            direction="higher",
            margin=10.0,
            unit="dB",
            name="forgetting at 2 px",
        ),
        ahead("small, then large", "at 2 px", 5.0, decides=True),
        ahead("small and largest mixed", "at 6 px", 2.0, decides=True),
        *(
            ahead(than, metric)
            for than, metric in (
                ("small and largest mixed", "PSNR"),
                ("small and largest mixed", "at 12 px"),
                ("all motions mixed", "PSNR"),
                ("the curriculum's, shuffled", "PSNR"),
                ("small only", "at 12 px"),
            )
        ),
    ],
    seeds=range(5),
    looks=(5,),
    tuning_seeds=1,
    shown=["PSNR", "at 2 px", "at 6 px", "at 12 px"],
    budget="360 steps of 16 triplets of 24 x 24 pixels for each arm",
    quick={"steps": 3, "number": 20},
    note="The paper's training code is not public, and its numbers are not known: gaps of 2 to 12 "
    "in six stages are ours. 'Shuffled' shows what the curriculum shows, in random order: what is "
    "left against it is the order's own effect.",
)
