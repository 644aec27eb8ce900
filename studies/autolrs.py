"""AutoLRS (Jin et al., 2021, arXiv 2105.10762): search the rate in every stage, by forecast.

A network with one hidden layer on digits, a fifth of whose training labels are wrong. First the
forecast alone: after a trial of 100 steps, which of ten rates will be best after 1000? Then the
whole method against a cosine at its best peak, with as many steps as AutoLRS trains for, and with
as many as it takes in total, its trials included.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from trainplan import schedules as s
from trainplan.lab import Claim, Study, Tuned
from trainplan.schedules.forecast import foresee

HIDDEN, BATCH, CHANCE = 32, 32, float(np.log(10))
RATES = np.geomspace(0.003, 2.0, 10)
TRIAL, STAGE, STARTS = 100, 1000, (0, 500, 2000)
STEPS = 2000
FORECASTS = ("exponential", "released", "last")


class Network:
    """The network, its data, and where it is in them; batches are functions of (seed, step)."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        x, y = load_digits(return_X_y=True)
        x, order = x / 16, random.permutation(len(x))
        self.x, self.test_x = x[order[:1200]], x[order[1200:]]
        self.y, self.test_y = y[order[:1200]], y[order[1200:]]
        wrong = random.random(1200) < 0.2
        self.y = np.where(wrong, random.integers(0, 10, 1200), self.y)
        self.weights = [
            random.standard_normal((64, HIDDEN)) / 8,
            np.zeros(HIDDEN),
            random.standard_normal((HIDDEN, 10)) / HIDDEN**0.5,
            np.zeros(10),
        ]
        self.seed, self.step = seed, 0

    def save(self) -> tuple[list[np.ndarray], int]:
        """All that training changes."""
        return [w.copy() for w in self.weights], self.step

    def restore(self, state: tuple[list[np.ndarray], int]) -> None:
        """Go back to what `save` gave."""
        self.weights, self.step = [w.copy() for w in state[0]], state[1]

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hidden units (n, 32) and log-probabilities (n, 10) of images (n, 64)."""
        w1, b1, w2, b2 = self.weights
        hidden = np.tanh(x @ w1 + b1)
        logits = hidden @ w2 + b2
        logits -= logits.max(axis=1, keepdims=True)
        return hidden, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def train(self, rates: np.ndarray) -> list[float]:
        """One SGD step for each rate; the losses before them."""
        losses = []
        for rate in rates.tolist():
            random = np.random.default_rng((self.seed, self.step))
            rows = random.integers(0, len(self.x), BATCH)
            x, y = self.x[rows], self.y[rows]
            hidden, log_p = self.forward(x)
            losses.append(float(-log_p[np.arange(BATCH), y].mean()))
            error = np.exp(log_p) / BATCH
            error[np.arange(BATCH), y] -= 1 / BATCH
            back = (error @ self.weights[2].T) * (1 - hidden**2)
            gradients = (x.T @ back, back.sum(0), hidden.T @ error, error.sum(0))
            for w, g in zip(self.weights, gradients, strict=True):
                np.subtract(w, rate * g, out=w)
            self.step += 1
        return losses

    def loss(self) -> float:
        """Loss on all training data, capped at chance, so that a diverged run counts as that."""
        found = float(-self.forward(self.x)[1][np.arange(len(self.x)), self.y].mean())
        return min(found, CHANCE) if np.isfinite(found) else CHANCE

    def accuracy(self) -> float:
        """Accuracy on held-out digits with their true labels."""
        return float((self.forward(self.test_x)[1].argmax(axis=1) == self.test_y).mean())


def forecast_regrets(seed: int) -> dict[str, float]:
    """What the rate chosen by each forecast loses against the best; the mean over three starts."""
    regrets: dict[str, list[float]] = {kind: [] for kind in FORECASTS}
    for start in STARTS:
        network = Network(seed)
        network.train(np.full(start, 0.1))
        state, trials, truth = network.save(), [], []
        for rate in RATES:
            network.restore(state)
            trials.append(network.train(np.full(TRIAL, rate)))
            network.train(np.full(STAGE - TRIAL, rate))
            truth.append(network.loss())
        for kind, found in regrets.items():
            guesses = [foresee(losses, STAGE, kind) for losses in trials]
            found.append(truth[int(np.argmin(guesses))] - min(truth))
    return {f"regret, {kind}": float(np.mean(found)) for kind, found in regrets.items()}


def measure(arm: str, seed: int, peak: float = 0.0, steps: int = STEPS) -> dict[str, float]:
    """Regrets of the forecasts, or loss and accuracy after a whole run."""
    if arm == "forecasts":
        return forecast_regrets(seed)
    network = Network(seed)
    if arm.startswith("cosine"):
        total = s.AutoLRS(RATES[0], RATES[-1], steps=steps, **STAGES).planned_cost().total
        length = total if "total" in arm else steps
        network.train(s.cosine(peak).resolve(length)(np.arange(length)))
        return {"loss": network.loss(), "accuracy": network.accuracy()}
    kept: list[tuple[list[np.ndarray], int]] = []
    search = s.train_with_search(
        s.AutoLRS(RATES[0], RATES[-1], steps=steps, seed=seed, **STAGES),
        train=lambda rate, n: network.train(np.full(n, rate)),
        save=lambda: kept.append(network.save()),
        restore=lambda: network.restore(kept[-1]),
    )
    rates = [rate for rate, _ in search.chosen]
    fall = float(np.log10(rates[0] / rates[-1]))
    return {"loss": network.loss(), "accuracy": network.accuracy(), "fall": fall}


STAGES = {"trial_steps": 10, "stage_steps": 100}
PEAKS = {"peak": Tuned(0.1, 0.2, 0.4, 0.8)}

STUDY = Study(
    paper="autolrs",
    claim="An exponential forecast of the loss chooses better rates than the loss at the end of "
    "the trial, and the rate that is found falls from stage to stage",
    arms={
        "forecasts": {},
        "autolrs": {},
        "cosine, equal training": PEAKS,
        "cosine, equal total": PEAKS,
    },
    measure=measure,
    claims=[
        Claim(
            text="The exponential forecast has less regret than the mean of the last ten losses",
            name="exponential forecast against the last losses",
            arm="forecasts",
            than="forecasts",
            metric="regret, exponential",
            than_metric="regret, last",
            unit="nats",
        ),
        Claim(
            text="The rate of the last stage is below that of the first",
            arm="autolrs",
            than=0.0,
            metric="fall",
            direction="higher",
            unit="decades",
        ),
        Claim(
            text="The exponential forecast has less regret than the released one",
            name="exponential forecast against the released one",
            arm="forecasts",
            than="forecasts",
            metric="regret, exponential",
            than_metric="regret, released",
            unit="nats",
            decides=False,
        ),
        Claim(
            text="With equal training, accuracy is within two points of a tuned cosine's",
            arm="autolrs",
            than="cosine, equal training",
            metric="accuracy",
            direction="higher",
            margin=-0.02,
            decides=False,
        ),
        Claim(
            text="With equal total steps, accuracy is within two points of a tuned cosine's",
            arm="autolrs",
            than="cosine, equal total",
            metric="accuracy",
            direction="higher",
            margin=-0.02,
            decides=False,
        ),
    ],
    seeds=range(16),
    looks=(8, 16),
    shown=[*(f"regret, {kind}" for kind in FORECASTS), "loss", "accuracy", "fall"],
    budget=f"30,000 steps for the forecasts of a seed; {STEPS} steps and as many of trials",
    quick={"steps": 400},
    note="AutoLRS needs about twice the steps that it trains for; both comparisons with cosine are "
    "reported. The losses of trials this short are noisy, which is hard on every forecast.",
)
