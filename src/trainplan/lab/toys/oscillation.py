"""Two features, one strong and one weak, and SGD whose rate is large enough to oscillate.

Lu et al., 2023, arXiv 2310.17074: with a small rate the network learns the strong feature, its
residual vanishes, and the weak feature is never learned. Above a threshold the outputs on strong
samples oscillate, the mean residual stays positive, and the weak feature grows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def outputs(weights: FloatArray, x: FloatArray) -> FloatArray:
    """f(x) = F_+1 - F_-1, F_j = (1/m) sum_r sum_patches relu(<w_jr, x_p>)^2.

    Args:
        weights: (2, m, d); the first is j = +1.
        x: (n, patches, d).

    Returns:
        (n,)
    """
    active = np.maximum(np.einsum("jmd,npd->njmp", weights, x), 0.0)
    sums = (active**2).sum(axis=(2, 3)) / weights.shape[1]
    return np.asarray(sums[:, 0] - sums[:, 1], dtype=np.float64)


def sgd(
    x: FloatArray, y: FloatArray, weights: FloatArray, order: npt.ArrayLike, lr: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Plain SGD with batch 1 on (f - y)^2 / 2.

    Args:
        x: (n, patches, d) samples.
        y: (n,) labels, +1 or -1.
        weights: (2, m, d) start; not changed.
        order: (steps,) which sample each step sees.
        lr: One rate, or (steps,).

    Returns:
        Outputs before each step (steps,), and the final weights; infinite values if it diverged.
    """
    w = np.array(weights, dtype=np.float64)
    steps = np.asarray(order, dtype=np.int64)
    rates = np.broadcast_to(np.asarray(lr, dtype=np.float64), steps.shape)
    signs = np.array([1.0, -1.0])[:, None, None]
    before = np.full(steps.size, np.inf)
    for t, i in enumerate(steps):
        active = np.maximum(w @ x[i].T, 0.0)
        f = float(((active**2).sum(axis=(1, 2)) / w.shape[1]) @ np.array([1.0, -1.0]))
        before[t] = f
        if not abs(f) < 1e6:
            w[:] = np.inf
            break
        w -= rates[t] * (f - y[i]) * signs * (2 / w.shape[1]) * (active @ x[i])
    return before, w


def strong_recursion(start: float, c: float, steps: int) -> FloatArray:
    """F <- F (1 - 2c (F - 1))^2, the strong feature alone, with c = eta |u|^2 / m.

    Returns:
        (steps + 1,) the start included.

    >>> strong_recursion(1.0, 0.4, 2).tolist()
    [1.0, 1.0, 1.0]
    """
    values = np.empty(steps + 1)
    values[0] = start
    for t in range(steps):
        values[t + 1] = values[t] * (1 - 2 * c * (values[t] - 1)) ** 2
    return values


@dataclass(frozen=True)
class TwoFeatures:
    """A data set: every sample has the weak feature, most have the strong one, the rest noise.

    Attributes:
        size: Dimension d.
        samples: Training samples.
        weak_samples: How many of them lack the strong feature.
        strong: |u|.
        weak: |v|.
        noise: Standard deviation of the noise that replaces the strong feature, orthogonal to both.
        width: Neurons m per sign.
        start: Standard deviation of the initial weights.
    """

    size: int = 64
    samples: int = 16
    weak_samples: int = 2
    strong: float = 1.0
    weak: float = 0.2
    noise: float = 0.1
    width: int = 8
    start: float = 0.03

    def draw(self, n: int, weak: int, random: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Samples (n, 2, d) and labels (n,), the first ``weak`` of them without strong feature."""
        y = random.choice([-1.0, 1.0], size=n)
        x = np.zeros((n, 2, self.size))
        x[:, 0, 1] = y * self.weak
        x[weak:, 1, 0] = y[weak:] * self.strong
        x[:weak, 1, 2:] = random.standard_normal((weak, self.size - 2)) * self.noise
        return x, y

    def train(self, c: float, steps: int, seed: int, tests: int = 200) -> dict[str, float]:
        """Train at eta = c m / |u|^2 and test samples of both kinds.

        Returns:
            ``weak`` and ``strong`` accuracy, training ``loss``, and the mean ``residual`` y f - 1
            on strong samples over the last quarter; accuracies are 0 if it diverged.
        """
        random = np.random.default_rng(seed)
        x, y = self.draw(self.samples, self.weak_samples, random)
        weights = random.standard_normal((2, self.width, self.size)) * self.start
        epochs = -(-steps // self.samples)
        order = np.concatenate([random.permutation(self.samples) for _ in range(epochs)])[:steps]
        before, final = sgd(x, y, weights, order, c * self.width / self.strong**2)
        if not np.isfinite(final).all():
            return {"weak": 0.0, "strong": 0.0, "loss": np.inf, "residual": np.nan, "diverged": 1.0}
        found = {"diverged": 0.0, "loss": float(((outputs(final, x) - y) ** 2).mean())}
        for name, weak in (("weak", tests), ("strong", 0)):
            test, label = self.draw(tests, weak, random)
            found[name] = float((outputs(final, test) * label > 0).mean())
        late = slice(3 * steps // 4, None)
        strong = order[late] >= self.weak_samples
        found["residual"] = float((before[late] * y[order[late]] - 1)[strong].mean())
        return found
