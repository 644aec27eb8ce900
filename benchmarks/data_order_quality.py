"""Statistical tests of permutations: is the computed order as random as a stored shuffle?

Each of eight tests gives a p-value per seed; over many seeds these must be uniform, which a
Kolmogorov-Smirnov test decides. Printed are its p-values: below 0.001 the permutation fails. Two
and four rounds of the same network stand beside it, to show what the tests can see.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from trainplan.data import Order
from trainplan.data.hashing import keys
from trainplan.data.order import permute

SIZES = (10_007, 65_537, 131_072)


def table(rows: np.ndarray, columns: np.ndarray, size: int) -> float:
    """p-value of independence, for a table whose margins are fixed."""
    counts = np.bincount(rows * size + columns, minlength=size * size)
    expected = np.outer(np.bincount(rows, minlength=size), np.bincount(columns, minlength=size))
    expected = expected.ravel() / rows.size
    return float(stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), (size - 1) ** 2))


def bins(values: np.ndarray, n: int, size: int) -> np.ndarray:
    return values * size // n


def normal(value: float, mean: float, variance: float) -> float:
    return float(2 * stats.norm.sf(abs(value - mean) / variance**0.5))


def position_value(p: np.ndarray, _: np.ndarray) -> float:
    return table(bins(np.arange(p.size), p.size, 32), bins(p, p.size, 32), 32)


def successive(p: np.ndarray, _: np.ndarray) -> float:
    # Pairs that do not overlap are independent.
    return table(bins(p[:-1:2], p.size, 32), bins(p[1::2], p.size, 32)[: p[:-1:2].size], 32)


def differences(p: np.ndarray, _: np.ndarray) -> float:
    steps = (p[1::2] - p[:-1:2][: p[1::2].size]) % p.size
    counts = np.bincount(bins(steps, p.size, 256), minlength=256)
    return float(stats.chisquare(counts).pvalue)


def residues(p: np.ndarray, _: np.ndarray) -> float:
    return table(np.arange(p.size) % 16, p % 16, 16)


def runs(p: np.ndarray, _: np.ndarray) -> float:
    above = p >= p.size // 2
    high, low, n = above.sum(), (~above).sum(), p.size
    mean = 1 + 2 * high * low / n
    variance = (mean - 1) * (mean - 2) / (n - 1)
    return normal(1 + (above[1:] != above[:-1]).sum(), mean, variance)


def ascents(p: np.ndarray, _: np.ndarray) -> float:
    return normal((p[1:] > p[:-1]).sum(), (p.size - 1) / 2, (p.size + 1) / 12)


def batch_means(p: np.ndarray, _: np.ndarray) -> float:
    size = 256
    whole = p.size // size * size
    means = p[:whole].reshape(-1, size).mean(1)
    variance = (p.size**2 - 1) / 12 / size * (1 - size / p.size)
    spread = ((means - means.mean()) ** 2).sum() / (variance * p.size / (p.size - size))
    return float(
        2 * min(stats.chi2.sf(spread, means.size - 1), stats.chi2.cdf(spread, means.size - 1))
    )


def epochs(p: np.ndarray, q: np.ndarray) -> float:
    return table(bins(p, p.size, 32), bins(q, p.size, 32), 32)


TESTS = (position_value, successive, differences, residues, runs, ascents, batch_means, epochs)


def computed(rounds: int) -> Callable[[int, int, int], np.ndarray]:
    def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
        numbers = np.arange(n, dtype=np.int64)
        permute(numbers, n, keys(rounds, seed, 0, epoch))
        return numbers

    return permutation


def shuffled(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def ours(n: int, seed: int, epoch: int) -> np.ndarray:
    return Order(n, seed).stretch(epoch, 0, n)


KINDS = {
    "ours": ours,
    "numpy shuffle": shuffled,
    "computed, 2 rounds": computed(2),
    "computed, 4 rounds": computed(4),
    "computed, 8 rounds": computed(8),
}


def battery(seeds: int) -> None:
    """Print a table: permutations by tests."""
    print(f"{'p over ' + str(seeds) + ' seeds':28}", *(f"{t.__name__[:11]:>12}" for t in TESTS))
    for n in SIZES:
        for name, permutation in KINDS.items():
            found: list[list[float]] = [[] for _ in TESTS]
            for seed in range(seeds):
                p, q = permutation(n, seed, 0), permutation(n, seed, 1)
                for values, test in zip(found, TESTS, strict=True):
                    values.append(test(p, q))
            told = [float(stats.kstest(values, "uniform").pvalue) for values in found]
            marks = [f"{x:11.2g}{'*' if x < 1e-3 else ' '}" for x in told]
            print(f"{name:20} {n:7}", *marks, flush=True)


if __name__ == "__main__":
    battery(200)
