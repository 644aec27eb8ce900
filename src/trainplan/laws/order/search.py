"""Search for a good order with a genetic algorithm whose fitness is an estimate.

Permutations are bred by order crossover (Davis, 1985): a stretch of one parent keeps its places,
the rest follows in the other parent's order. The paper names the method, not its settings; those
here are ours.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainplan.errors import PlanError
from trainplan.files import write_atomically
from trainplan.laws.order.progress import progress_over
from trainplan.laws.order.training import full_order
from trainplan.schedules.values import count

Order = list[int]


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        order: The best order.
        score: Its score, the lowest.
        history: Every order that was scored, with its score.
    """

    order: Order
    score: float
    history: list[tuple[Order, float]]


def order_crossover(first: Sequence[int], second: Sequence[int], rng: np.random.Generator) -> Order:
    """A child with a stretch of the first parent in place, the rest in the second's order.

    >>> order_crossover([0, 1, 2, 3], [3, 2, 1, 0], np.random.default_rng(1))
    [2, 1, 0, 3]
    """
    n = len(first)
    begin, end = sorted(rng.choice(n + 1, size=2, replace=False).tolist())
    kept = set(first[begin:end])
    # Davis fills the places after the stretch first, from the second parent's same place on.
    rest = [second[(end + i) % n] for i in range(n) if second[(end + i) % n] not in kept]
    child = list(first)
    for i, value in enumerate(rest):
        child[(end + i) % n] = value
    return child


def swap_mutation(order: Sequence[int], rng: np.random.Generator) -> Order:
    """The order with two of its places exchanged."""
    mutated = list(order)
    if len(mutated) > 1:
        a, b = rng.choice(len(mutated), size=2, replace=False)
        mutated[a], mutated[b] = mutated[b], mutated[a]
    return mutated


class _Breeder:
    """Proposes one order at a time; all of its state is in ``scored`` and the generator."""

    def __init__(self, start: Order, population: int, mutation: float, seed: int) -> None:
        self._start, self._size, self._mutation = start, population, mutation
        self._rng = np.random.default_rng(seed)
        self._generation: list[tuple[Order, float]] = []
        self._parents: list[tuple[Order, float]] = []

    def propose(self, known: set[tuple[int, ...]]) -> Order:
        """An order that was not scored yet, if one is found soon."""
        order = list(self._start)
        for _ in range(100):
            order = self._child()
            if tuple(order) not in known:
                break
        return order

    def _child(self) -> Order:
        if not self._parents:
            first = not self._generation
            return list(self._start) if first else self._rng.permutation(self._start).tolist()
        child = order_crossover(self._pick(), self._pick(), self._rng)
        return swap_mutation(child, self._rng) if self._rng.random() < self._mutation else child

    def _pick(self) -> Order:
        drawn = self._rng.choice(len(self._parents), size=min(3, len(self._parents)), replace=False)
        return self._parents[int(drawn.min())][0]  # parents are sorted, best first

    def scored(self, order: Order, score: float) -> None:
        """Hear a score; a full generation and the best of the last one become the parents."""
        self._generation.append((order, score))
        if len(self._generation) == self._size:
            everybody = sorted(self._parents + self._generation, key=lambda one: one[1])
            self._parents, self._generation = everybody[: self._size], []

    def state_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rng": self._rng.bit_generator.state,
            "generation": self._generation,
            "parents": self._parents,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._rng.bit_generator.state = state["rng"]
        self._generation = [(order, score) for order, score in state["generation"]]
        self._parents = [(order, score) for order, score in state["parents"]]


def genetic_search(
    score: Callable[[Order], float],
    start: Sequence[int],
    *,
    budget: int = 200,
    population: int = 20,
    mutation: float = 0.5,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    show: bool | None = None,
) -> Found:
    """The order with the lowest score among ``budget`` orders tried.

    Generation 0 is the start and random orders. Later ones come from tournaments of three among the
    best ``population`` orders so far. Scores that are not finite count as the worst.

    Args:
        score: Of an order; lower is better.
        start: A permutation of 0, 1, ..., n - 1 to begin with.
        budget: How many orders are scored.
        population: How many are kept as parents.
        mutation: The probability that a child has two places exchanged, in [0, 1].
        seed: Of the breeding.
        checkpoint: A file that is written after every score, and gone on from if it exists.
        show: Whether to draw a progress bar; by default if somebody is watching.

    Raises:
        PlanError: If ``start`` is no permutation or the file belongs to another search.

    Example:
        >>> far = lambda order: sum(abs(place - j) for place, j in enumerate(order))
        >>> genetic_search(far, [3, 2, 1, 0], budget=24, population=6).order
        [0, 1, 2, 3]
    """
    begin = full_order(start, len(start), len(start))
    limit, size = count(budget, "budget"), count(population, "population")
    if size < 2 or not 0 <= mutation <= 1:
        raise PlanError(
            "needs a population of at least 2 and a probability of mutation in [0, 1]",
            place="population, mutation",
            value=(population, mutation),
        )
    breeder = _Breeder(begin, size, mutation, seed)
    settings = {"start": begin, "population": size, "mutation": mutation, "seed": seed}
    history: list[tuple[Order, float]] = []
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.exists():
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["settings"] != settings:
            raise PlanError(
                "belongs to another search",
                place="checkpoint",
                value=str(path),
                remedy="Name another file, or delete it",
            )
        history = [(order, value) for order, value in saved["history"]]
        breeder.load_state_dict(saved["breeder"])
    known = {tuple(order) for order, _ in history}
    for _ in progress_over(range(len(history), limit), "Orders tried", show):
        order = breeder.propose(known)
        value = float(score(order))
        value = value if math.isfinite(value) else math.inf
        breeder.scored(order, value)
        history.append((order, value))
        known.add(tuple(order))
        if path is not None:
            content = {"settings": settings, "history": history, "breeder": breeder.state_dict()}
            write_atomically(path, json.dumps(content))
    order, value = min(history[:limit], key=lambda one: one[1])
    return Found(order, value, history[:limit])
