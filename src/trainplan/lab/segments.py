"""Find what runs have in common, so that it is trained once.

A run is a chain of *segments*: stretches of steps with given knob values, each continuing from the
state at the end of its parent. Two arms with the same seed whose knob values agree to the bit up
to step ``k`` go through the same states up to there, because everything else that training depends
on is a function of (workload, seed, step). So their chains share their first segments, and the
runs of one seed form a tree. Eight horizons of one WSD plan, say, share one long stable phase and
differ in eight short decays (Hu et al. 2024, arXiv:2404.06395, section 4.3).

Arms with a controller never share: what they do is not known before they run.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SHORTEST_SHARED = 10
"""Shorter stretches are trained by each arm: saving and loading a state costs more."""


@dataclass(frozen=True, eq=False)
class Curves:
    """The knob values of one arm at every step.

    Attributes:
        names: One name per column.
        values: Shape (steps, columns), float64; row ``t`` is used by the update with ``t``
            completed updates before it.
        private: Empty if the values are known beforehand; otherwise something that identifies the
            arm's plan, and the arm shares nothing.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    private: str = ""

    @property
    def steps(self) -> int:
        """Number of steps of the run."""
        return len(self.values)


@dataclass(frozen=True)
class Segment:
    """A stretch of training.

    Attributes:
        key: Digest of all that its outcome depends on, and so the name of its directory.
        seed: Of the task.
        start: Completed updates before its first one.
        stop: Completed updates after its last one.
        parent: Key of the segment it continues; ``None`` at step 0.
        arm: Name of an arm that passes through it, whose plan gives its values.
        ends: Whether the run of some arm ends here.
    """

    key: str
    seed: int
    start: int
    stop: int
    parent: str | None
    arm: str
    ends: bool

    @property
    def steps(self) -> int:
        """Number of updates."""
        return self.stop - self.start


@dataclass(frozen=True)
class Graph:
    """All segments of an experiment, and the way of each run through them.

    Attributes:
        segments: By key; a parent comes before its children.
        chains: For each (arm, seed), the keys of its segments in order.
    """

    segments: Mapping[str, Segment]
    chains: Mapping[tuple[str, int], tuple[str, ...]]
    children: Mapping[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        children = defaultdict(list)
        for segment in self.segments.values():
            if segment.parent is not None:
                children[segment.parent].append(segment.key)
        object.__setattr__(self, "children", {key: tuple(v) for key, v in children.items()})

    @property
    def planned_steps(self) -> int:
        """Steps of all runs, each counted alone."""
        return sum(self.segments[key].steps for chain in self.chains.values() for key in chain)

    @property
    def steps(self) -> int:
        """Steps that are trained."""
        return sum(segment.steps for segment in self.segments.values())

    def remaining_path(self, key: str) -> int:
        """Steps from the start of a segment to the end of the longest run through it."""
        below = (self.remaining_path(child) for child in self.children.get(key, ()))
        return self.segments[key].steps + max(below, default=0)


def plan_segments(
    arms: Mapping[str, Curves],
    seeds: Sequence[int],
    *,
    context: str,
    share: bool = True,
    shortest: int = SHORTEST_SHARED,
) -> Graph:
    """Split the runs of ``arms`` into as few segments as possible.

    Args:
        arms: Knob values by name of the arm.
        seeds: Every arm runs on all of them.
        context: Digest of all else that outcomes depend on: the workload and what is recorded.
        share: Train shared prefixes once; otherwise each run is one segment of its own.
        shortest: Least number of steps worth sharing.

    Example:
        >>> stable = np.full((80, 1), 0.1)
        >>> short = np.concatenate([stable, np.linspace(0.1, 0, 20)[:, None]])
        >>> long = np.full((200, 1), 0.1)
        >>> arms = {"short": Curves(("lr",), short), "long": Curves(("lr",), long)}
        >>> graph = plan_segments(arms, [0], context="")
        >>> [(s.start, s.stop) for s in graph.segments.values()], graph.planned_steps
        ([(0, 81), (81, 100), (81, 200)], 300)
    """
    segments: dict[str, Segment] = {}
    chains: dict[tuple[str, int], tuple[str, ...]] = {}

    def grow(group: list[str], seed: int, start: int, chain: tuple[str, ...], begin: int) -> None:
        """Add what follows for ``group``: its values agree on [start, begin)."""
        head = arms[group[0]]
        stop = min(_agreement(head, arms[name], begin) for name in group)
        parts = _parts(group, arms, stop)
        if len(parts) > 1 and stop - start < max(shortest, 1):
            for part in parts:
                grow(part, seed, start, chain, stop)
            return
        parent = chain[-1] if chain else None
        key = _key(context, seed, parent, start, stop, head)
        ended = [name for name in group if arms[name].steps == stop]
        segments[key] = Segment(key, seed, start, stop, parent, group[0], bool(ended))
        chain = (*chain, key)
        chains.update({(name, seed): chain for name in ended})
        for part in parts:
            if part != ended:
                grow(part, seed, stop, chain, stop)

    for seed in seeds:
        for group in _families(arms, share):
            grow(group, seed, 0, (), 0)
    return Graph(segments, {(a, s): chains[a, s] for a in arms for s in seeds})


def _families(arms: Mapping[str, Curves], share: bool) -> Iterable[list[str]]:
    """Arms that may share: the same knobs, known beforehand."""
    families: dict[object, list[str]] = {}
    for name, curves in arms.items():
        alone = bool(curves.private) or not share
        families.setdefault(name if alone else curves.names, []).append(name)
    return families.values()


def _agreement(a: Curves, b: Curves, begin: int) -> int:
    """First step from ``begin`` on at which two arms differ in a bit or one of them ends."""
    steps = min(a.steps, b.steps)
    if a is b:
        return steps
    # Bits, not numbers: 0.0 equals -0.0 but may train differently, and NaN differs from itself.
    differ = (_bits(a)[begin:steps] != _bits(b)[begin:steps]).any(axis=1)
    return begin + int(np.argmax(differ)) if differ.any() else steps


def _parts(group: list[str], arms: Mapping[str, Curves], step: int) -> list[list[str]]:
    """The arms that end at ``step``, then groups of the others by their values there."""
    parts: dict[bytes | None, list[str]] = {}
    for name in group:
        curves = arms[name]
        value = None if curves.steps == step else _bits(curves)[step].tobytes()
        parts.setdefault(value, []).append(name)
    return list(parts.values())


def _bits(curves: Curves) -> NDArray[np.uint64]:
    return np.ascontiguousarray(curves.values).view(np.uint64)


def _key(context: str, seed: int, parent: str | None, start: int, stop: int, curves: Curves) -> str:
    head = json.dumps([context, seed, parent, start, stop, curves.names, curves.private])
    digest = hashlib.sha256(head.encode())
    digest.update(np.ascontiguousarray(curves.values[start:stop]).tobytes())
    return digest.hexdigest()[:24]
