"""How often does the rule for verdicts err, and how often does it find what is there?

    python benchmarks/verdict_error_rates.py            # prints the tables
    python benchmarks/verdict_error_rates.py --write    # also into docs/concepts/verdicts.md

Studies are simulated seed by seed and stopped as the rule says. The true mean difference is the
margin (the hardest case, in which both verdicts are false), or lies above it; differences are
normal, heavy-tailed (Student's t with 3 degrees of freedom), skewed (exponential), or contaminated
(every tenth ten times as wide). The looks are those of the studies in this repository.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from trainplan.lab.verdict import nominal_level

LOOKS = [(4, 8), (5, 10), (4, 8, 12), (4, 8, 16), (5, 10, 20), (8,), (10,)]
DRAWS = 200_000
PAGE = Path(__file__).parents[1] / "docs" / "concepts" / "verdicts.md"

Noise = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
NOISES: dict[str, Noise] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "heavy tails": lambda random, shape: random.standard_t(3, shape) / np.sqrt(3),
    "skewed": lambda random, shape: random.exponential(1.0, shape) - 1,
    "contaminated": lambda random, shape: (
        random.standard_normal(shape) * np.where(random.random(shape) < 0.1, 10, 1) / np.sqrt(10.9)
    ),
}
"""Differences with mean 0 and standard deviation 1."""


def simulate(
    noise: Noise, shift: float, looks: tuple[int, ...], draws: int = DRAWS
) -> tuple[float, float, float]:
    """Shares of "reproduced" and "contradicted", and the mean number of seeds used.

    Args:
        noise: Draws differences (studies, seeds).
        shift: True mean minus margin, in standard deviations.
        looks: When the study looks.
        draws: Number of simulated studies.
    """
    differences = shift + noise(np.random.default_rng(99), (draws, looks[-1]))
    level = nominal_level(looks)
    verdict, seeds = np.zeros(draws, dtype=int), np.full(draws, looks[-1])
    for look in looks:
        seen = differences[:, :look]
        reach = stdtrit(look - 1, 1 - level) * seen.std(axis=1, ddof=1) / np.sqrt(look)
        mean, still_open = seen.mean(axis=1), verdict == 0
        found = np.where(mean > reach, 1, np.where(mean < -reach, -1, 0))
        seeds[still_open & (found != 0)] = look
        verdict[still_open] = found[still_open]
    return float((verdict == 1).mean()), float((verdict == -1).mean()), float(seeds.mean())


def error_table() -> str:
    """False verdicts when the truth is exactly the margin."""
    lines = [
        "| looks at | level of a look | " + " | ".join(NOISES) + " |",
        "|---|---|" + "---|" * len(NOISES),
    ]
    for looks in LOOKS:
        cells = []
        for noise in NOISES.values():
            reproduced, contradicted, _ = simulate(noise, 0.0, looks)
            cells.append(f"{reproduced:.1%} / {contradicted:.1%}")
        name = ", ".join(map(str, looks))
        lines.append(f"| {name} | {nominal_level(looks):.4f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def power_table() -> str:
    """How often the true verdict is reached, and with how many seeds, for normal differences."""
    shifts = (0.5, 1.0, 1.5, 2.0, 3.0)
    lines = [
        "| looks at | " + " | ".join(f"{shift:g} sd" for shift in shifts) + " |",
        "|---|" + "---|" * len(shifts),
    ]
    for looks in LOOKS:
        cells = []
        for shift in shifts:
            reproduced, _, seeds = simulate(NOISES["normal"], shift, looks)
            cells.append(f"{reproduced:.0%} ({seeds:.1f})")
        lines.append(f"| {', '.join(map(str, looks))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Error rates and power of the rule for verdicts.")
    parser.add_argument(
        "--write", action="store_true", help="put the tables into the documentation"
    )
    arguments = parser.parse_args()
    tables = {"errors": error_table(), "power": power_table()}
    for name, table in tables.items():
        sys.stdout.write(f"{name}\n\n{table}\n\n")
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        for name, table in tables.items():
            mark = f"<!-- {name} -->"
            pattern = re.escape(mark) + r".*?" + re.escape("<!-- end -->")
            replacement = f"{mark}\n\n{table}\n\n<!-- end -->"
            page, count = re.subn(pattern, lambda _, r=replacement: r, page, flags=re.DOTALL)
            assert count == 1, f"{PAGE} lacks the mark {mark}"
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
