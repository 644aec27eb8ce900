"""TrAct (Petersen, Borgelt and Ermon, 2024): does a preconditioned first layer learn sooner?

Two small networks learn scikit-learn's digits, each image with a contrast and a brightness of its
own. Every arm has Adam, a cosine and the same tries for its peak; they differ in how the first
layer's gradient is taken, or in how the inputs are normalized before it.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import trainplan as tp
from trainplan.lab import Claim, Study, Tuned
from trainplan.optim import tract_layer
from trainplan.optim.tract import precondition

TRAIN, BATCH = 1200, 64
RATES = Tuned(1e-3, 3e-3, 1e-2, 3e-2)
LAMBDAS = (0.05, 0.1, 0.2)


@lru_cache(maxsize=1)
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All images, 1797 x 64, of mean 0 and deviation 1 together, and their labels."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32)
    return (x - x.mean()) / x.std(), torch.tensor(labels)


def varied(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """In an order of the seed, each image with a contrast in [0.2, 3] and an offset of its own."""
    random = torch.Generator().manual_seed(seed)
    x, y = digits()
    order = torch.randperm(len(x), generator=random)
    contrast = 0.2 + 2.8 * torch.rand(len(x), 1, generator=random)
    x = x[order] * contrast + torch.randn(len(x), 1, generator=random)
    return (x - x[:TRAIN].mean()) / x[:TRAIN].std(), y[order]


def normalized(x: torch.Tensor, how: str) -> torch.Tensor:
    """Inputs after the normalization of an arm."""
    if how == "image":
        return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5)
    if how == "zca":
        centred = x - x[:TRAIN].mean(0)
        values, vectors = torch.linalg.eigh(centred[:TRAIN].T @ centred[:TRAIN] / TRAIN)
        return centred @ (vectors / (values + 0.1).sqrt()) @ vectors.T
    return x


def network(net: str, strength: float) -> nn.Sequential:
    """A network on rows of 64 pixels, its first layer preconditioned if there is a lambda."""
    if net == "mlp":
        layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]
    else:
        layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        layers += [nn.Linear(256, 10)]
    if strength:
        layers[0] = tract_layer(layers[0], strength)
    return nn.Sequential(*([] if net == "mlp" else [nn.Unflatten(1, (1, 8, 8))]), *layers)


def measure(
    arm: str, seed: int, net: str = "", lr=1e-2, strength=0.0, how: str = "", epochs: int = 12
) -> dict[str, float]:
    """Mean test accuracy over all epochs (high means early), after a quarter, and at the end."""
    torch.set_num_threads(1)
    if arm == "one step":
        return one_step(seed)
    x, y = varied(seed)
    x = normalized(x, how)
    torch.manual_seed(seed)
    model = network(net, strength)
    optimizer = torch.optim.Adam(model.parameters(), lr, fused=True)
    steps = TRAIN // BATCH
    tp.torch.attach(tp.Plan(horizon=epochs * steps, lr=tp.schedules.cosine(lr)), optimizer)
    random, found = torch.Generator().manual_seed(seed), []
    for _ in range(epochs):
        for rows in torch.randperm(TRAIN, generator=random)[: steps * BATCH].split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            found.append((model(x[TRAIN:]).argmax(1) == y[TRAIN:]).float().mean().item())
    return {"mean": sum(found) / epochs, "quarter": found[epochs // 4 - 1], "end": found[-1]}


def one_step(seed: int) -> dict[str, float]:
    """Cosine of the activations' move in one step with their negative gradient."""
    x, y = varied(seed)
    torch.manual_seed(seed)
    model = network("mlp", 0.0)
    z = model[0](x[:256])
    (g,) = torch.autograd.grad(cross_entropy(model[1:](z), y[:256]), z)
    vanilla = g.T @ x[:256]
    moves = {"vanilla": vanilla, **{str(s): precondition(vanilla, x[:256], s) for s in LAMBDAS}}
    moves["0.001"] = precondition(vanilla, x[:256], 1e-3)
    return {
        name: torch.cosine_similarity((x[:256] @ move.T).flatten(), g.flatten(), 0).item()
        for name, move in moves.items()
    }


def arms(net: str) -> dict[str, dict]:
    """The arms of one network: equal tries for each."""
    base = {"net": net, "lr": RATES}
    return {
        f"{net}, vanilla": base,
        **{f"{net}, TrAct {s}": {**base, "strength": s} for s in LAMBDAS},
        f"{net}, each image normalized": {**base, "how": "image"},
        f"{net}, ZCA": {**base, "how": "zca"},
    }


def claim(arm: str, than: str, text: str, metric: str = "mean", **options) -> Claim:
    """That an arm has more of a metric than another."""
    options = {"unit": "accuracy", **options}
    return Claim(text=text, arm=arm, than=than, metric=metric, direction="higher", **options)


def others(net: str) -> list[Claim]:
    """What is reported and decides nothing."""
    found = [
        claim(f"{net}, TrAct {s}", f"{net}, vanilla", f"It is ahead with lambda {s}", decides=False)
        for s in LAMBDAS
        if s != 0.1
    ]
    for metric, text in (("quarter", "after a quarter of the epochs"), ("end", "at the end")):
        name = f"{net}, {text}"
        options = {"metric": metric, "decides": False, "name": name}
        found.append(claim(f"{net}, TrAct 0.1", f"{net}, vanilla", f"Ahead {text}", **options))
    for other in ("each image normalized", "ZCA"):
        text = f"TrAct is ahead of this normalization of the inputs: {other}"
        found.append(claim(f"{net}, TrAct 0.1", f"{net}, {other}", text, decides=False))
    return found


NETS = {"mlp": "a multilayer perceptron", "conv": "a convolutional network"}
STUDY = Study(
    paper="tract",
    claim="On digits of varied contrast, TrAct (lambda 0.1) learns sooner than the plain layer, "
    "each at its own best rate",
    arms={**arms("mlp"), **arms("conv"), "one step": {}},
    measure=measure,
    metric="mean",
    direction="higher",
    claims=[
        *(
            claim(
                f"{net}, TrAct 0.1",
                f"{net}, vanilla",
                f"Test accuracy of {words}, mean over all epochs, is higher by more than 0.005",
                margin=0.005,
            )
            for net, words in NETS.items()
        ),
        *others("mlp"),
        *others("conv"),
        Claim(
            text="One step with a small lambda moves activations along their gradient better "
            "than the plain one by more than 0.2",
            name="one step, lambda 0.001 against vanilla",
            arm="one step",
            than="one step",
            metric="0.001",
            than_metric="vanilla",
            direction="higher",
            margin=0.2,
            unit="cosine",
            decides=False,
        ),
    ],
    seeds=range(8),
    looks=(4, 8),
    shown=["mean", "quarter", "end", "vanilla", "0.001", *map(str, LAMBDAS)],
    budget="12 epochs of 1200 images in batches of 64",
    quick={"epochs": 4},
    note="The paper's networks are thousands of times larger and its gain is in hundreds of "
    "epochs. It takes the baseline's best rate for both; here every arm tunes its own, by the "
    "metric that decides, on four rates.",
)
