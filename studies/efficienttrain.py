"""EfficientTrain (Wang et al., 2023): can early epochs do with small, low-pass filtered images?

Handwritten digits are enlarged to 32 x 32 pixels and put under white noise, so that their high
frequencies say little, as in photographs. A small convolutional network learns them at full size,
or with a bandwidth that rises in five stages. All arms are tested at full size.
"""

from __future__ import annotations

import time
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

import trainplan as tp
from trainplan.data import bandwidth_stages, low_frequency_crop
from trainplan.lab import Claim, Study, Tuned

SIZE, TRAIN, BATCH, NOISE = 32, 800, 64, 0.35
STEPS, EPOCHS, KEPT = TRAIN // BATCH, 10, 10
FULL = "full size"


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All images, 1797 x 1 x 32 x 32, and their labels."""
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    return interpolate(x, SIZE, mode="bicubic"), torch.tensor(y)


def noisy(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """In an order of the seed, with noise of the seed; of mean 0 and deviation 1 together."""
    random = torch.Generator().manual_seed(seed)
    x, y = digits()
    order = torch.randperm(len(x), generator=random)
    x = x[order] + NOISE * torch.randn(x.shape, generator=random)
    return (x - x[:TRAIN].mean()) / x[:TRAIN].std(), y[order]


def network() -> nn.Sequential:
    """Three convolutions that take any size, without statistics of batches."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def resized(x: torch.Tensor, size: int) -> torch.Tensor:
    """Plain progressive resizing, without a filter, as image pipelines often do on tensors."""
    return interpolate(x, size, mode="bilinear")


def measure(
    arm: str, seed: int, sizes=(), lr=0.0, crop: str = "fourier", epochs=EPOCHS, steps=STEPS
) -> dict[str, float]:
    """Accuracy at full size, processor time, and pixels as a share of all epochs at full size."""
    torch.set_num_threads(1)
    x, y = noisy(seed)
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.05, fused=True)
    plan = tp.Plan(horizon=epochs * steps, lr=tp.schedules.one_cycle(lr))
    tp.torch.attach(plan, optimizer)
    stages = bandwidth_stages(epochs, sizes, warmup=0, base=SIZE)
    shrink = low_frequency_crop if crop == "fourier" else resized
    tests = {kept: low_passed(x[TRAIN:], kept) for kept in (KEPT, SIZE)}
    random, pixels, spent = torch.Generator().manual_seed(seed), 0, 0.0
    found: dict[int, list[float]] = {kept: [] for kept in tests}
    for epoch in range(epochs):
        size = stages.at(epoch).bandwidth
        begin = time.process_time()
        for rows in torch.randperm(TRAIN, generator=random)[: steps * BATCH].split(BATCH):
            images = shrink(x[rows], size) if size < SIZE else x[rows]
            pixels += images.shape[-1] ** 2
            optimizer.zero_grad()
            cross_entropy(model(images), y[rows]).backward()
            optimizer.step()
        spent += time.process_time() - begin
        if arm == FULL or epoch == epochs - 1:
            for kept, test in tests.items():
                with torch.no_grad():
                    right = model(test).argmax(1) == y[TRAIN:]
                found[kept].append(right.float().mean().item())
    # How early accuracy rises: its mean over epochs as a share of its end.
    early = {kept: sum(curve) / len(curve) / curve[-1] for kept, curve in found.items()}
    return {
        "accuracy": found[SIZE][-1],
        "seconds": spent,
        "pixels": pixels / (EPOCHS * STEPS * SIZE**2),
        "earliness": early[SIZE],
        "earliness, low frequencies": early[KEPT],
    }


def low_passed(x: torch.Tensor, kept: int) -> torch.Tensor:
    """The images with only their lowest frequencies, on the same grid."""
    mask = torch.zeros(SIZE)
    mask[(SIZE - kept) // 2 : (SIZE + kept) // 2] = 1
    spectrum = torch.fft.fft2(x) * torch.fft.ifftshift(mask * mask[:, None])
    return torch.fft.ifft2(spectrum).real


def claim(arm: str, than: str | float, text: str, **options) -> Claim:
    """A comparison of accuracies, unless the options say otherwise."""
    options = {"metric": "accuracy", "direction": "higher", "unit": "accuracy", **options}
    return Claim(text=text, arm=arm, than=than, **options)


RATES = Tuned(8e-3, 1.6e-2, 3.2e-2)
RISING, STEEP, FALLING = [24, 24, 24, 28, 32], [16, 16, 16, 24, 32], [32, 28, 24, 24, 24]

STUDY = Study(
    paper="efficienttrain",
    claim="A bandwidth that rises in stages loses at most 1.5 points of accuracy to full-size "
    "training and processes under 70 % of the pixels, while the reversed order is worse",
    arms={
        FULL: {"sizes": [SIZE] * 5, "lr": RATES},
        "rising": {"sizes": RISING, "lr": RATES},
        "steeper": {"sizes": STEEP, "lr": RATES},
        "reversed": {"sizes": FALLING, "lr": RATES},
        "rising, resized": {"sizes": RISING, "lr": RATES, "crop": "bilinear"},
        "full size, 7 epochs": {"sizes": [SIZE] * 5, "lr": RATES, "epochs": 7},
    },
    measure=measure,
    metric="accuracy",
    direction="higher",
    claims=[
        claim("rising", FULL, "It loses at most 1.5 points to full size", margin=-0.015),
        claim("rising", "reversed", "It is ahead of the reversed order of the same cost"),
        claim(
            "rising",
            0.7,
            "It processes less than 70 % of the pixels",
            metric="pixels",
            direction="lower",
            unit="",
            name="pixels",
        ),
        claim(
            "rising",
            FULL,
            "It takes less processor time",
            metric="seconds",
            direction="lower",
            unit="s",
            name="processor time",
            decides=False,
        ),
        claim(
            "rising",
            "full size, 7 epochs",
            "It is ahead of full size for as many pixels",
            decides=False,
        ),
        claim("rising", "rising, resized", "It is ahead of plain resizing", decides=False),
        claim(
            "steeper",
            FULL,
            "A steeper rise, of 46 % of the pixels, loses at most 1.5 points",
            margin=-0.015,
            decides=False,
        ),
        claim(
            FULL,
            FULL,
            "At full size, accuracy on low frequencies alone rises earlier than on all",
            metric="earliness, low frequencies",
            than_metric="earliness",
            unit="",
            name="low frequencies first",
            decides=False,
        ),
    ],
    seeds=range(8),
    looks=(4, 8),
    shown=["accuracy", "seconds", "pixels", "earliness", "earliness, low frequencies"],
    budget="10 epochs of 800 images in batches of 64, at 32 x 32 pixels or fewer",
    quick={"epochs": 5, "steps": 2},
    note="The sizes are the paper's 160, 192 and 224, scaled to 32 and made even. Augmentation "
    "does not change here, as digits have no use for most of it. The network has no statistics of "
    "batches, which would put the reversed order at a disadvantage of another kind. A pilot on two "
    "other seeds chose the rates to try, the same three for each arm. At 10 of 32 frequencies all "
    "that the 8 x 8 digits hold is kept.",
)
