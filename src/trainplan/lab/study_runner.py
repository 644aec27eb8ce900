"""Run a study: measure every arm on every seed, in stages, until the rule has its verdict.

The unit of work is a *cell*: one arm on one seed, or all arms on one seed where they share work.
Cells run in processes of one thread each, and every finished cell is one line in a cache file, so
that a study that was stopped or killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trainplan.lab.environment import available_cores, decides_numbers, environment
from trainplan.lab.experiment import TUNING_SEEDS_FROM
from trainplan.lab.store import read_rows
from trainplan.lab.study import SeedResults, Study, Tuned
from trainplan.lab.study_outcome import StudyOutcome, judge, overall
from trainplan.lab.study_workers import Measurement, in_processes, timed
from trainplan.lab.verdict import check_looks
from trainplan.plan import Plan

ALL = ""
"""Stands for every arm in a cell that measures all of them."""
EXACT = -1
"""Stands for the seed in a cell of an exact study."""
QUICK_SEEDS = 2


@dataclass(frozen=True)
class Cell:
    """One measurement to make.

    Attributes:
        arm: Name of the arm; ``ALL`` for every arm at once.
        seed: The seed; ``EXACT`` without one.
        chosen: Values of tuned arguments, by name.
        quick: Whether to shorten it.
    """

    arm: str
    seed: int
    chosen: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False

    def key(self, context: str) -> str:
        """Identifies the measurement within everything its result depends on."""
        text = json.dumps(
            [context, self.arm, self.seed, self.chosen, self.quick], sort_keys=True, default=repr
        )
        return hashlib.sha256(text.encode()).hexdigest()[:24]


class Watcher(Protocol):
    """Is told how a study goes."""

    def stage(self, title: str, cells: int, known: int) -> None:
        """A stage of so many cells begins, of which some are known already."""

    def measured(self, cell: Cell, seconds: float) -> None:
        """One cell is done."""


class Quiet:
    """A watcher that says nothing."""

    def stage(self, title: str, cells: int, known: int) -> None:
        """Say nothing."""

    def measured(self, cell: Cell, seconds: float) -> None:
        """Say nothing."""


def run_study(
    study: Study,
    *,
    source: str = "",
    seeds: int | None = None,
    quick: bool = False,
    jobs: int | None = None,
    cache: Path | None = None,
    watcher: Watcher | None = None,
) -> StudyOutcome:
    """Run a study to its verdict.

    Args:
        study: The study.
        source: Where worker processes find it: a file, or ``package.module:STUDY``. Without one,
            everything runs in this process.
        seeds: Use at most so many seeds, in the study's stages; by default all that it lists.
        quick: Shorten it: two seeds and the study's ``quick`` arguments. No evidence.
        jobs: Worker processes; by default one per core. The results do not depend on it.
        cache: File of finished measurements; those that it holds are not made again.
        watcher: Is told how it goes.

    Raises:
        PlanError: If the options do not fit the study.
        LabError: If a measurement fails.
    """
    begin = time.perf_counter()
    workers = (jobs or available_cores()) if source else 1
    bench = _Bench(study, source, quick, workers, cache, watcher or Quiet())
    chosen, tuning = _tune(study, bench)
    if study.exact:
        looks: tuple[int, ...] = ()
        results = bench.measure_seeds("computing", (EXACT,), chosen)
        outcomes = judge(study, list(results.values()), looks)
    else:
        numbers, looks = study.staged(seeds)
        if quick and seeds is None:
            numbers, looks = numbers[:QUICK_SEEDS], check_looks([min(QUICK_SEEDS, len(numbers))])
        for look in looks:
            title = f"{look} seeds" if len(looks) == 1 else f"{look} seeds, of {looks[-1]} at most"
            results = bench.measure_seeds(title, numbers[:look], chosen)
            outcomes = judge(study, list(results.values()), looks)
            if overall(outcomes) != "inconclusive":
                break
    return StudyOutcome(
        study=study,
        results=results,
        claims=outcomes,
        verdict=overall(outcomes),
        looks=looks,
        tuned=chosen,
        tuning=tuning,
        quick=quick,
        seconds=time.perf_counter() - begin + bench.earlier,
        cpu_seconds=bench.cpu_seconds,
        provenance={
            "options": {"seeds": seeds, "as planned": seeds is None and not quick},
            "digests": digests(study, source),
            "environment": environment(workers),
        },
    )


def measure_cell(study: Study, cell: Cell) -> dict[str, dict[str, float]]:
    """Make one measurement in this process: metrics by arm."""
    shorter = dict(study.quick) if cell.quick else {}
    seed = () if cell.seed == EXACT else (cell.seed,)
    if study.workload is not None:
        return _train_plans(study, cell.seed, shorter)
    if study.measure_all is not None:
        return {arm: _floats(found) for arm, found in study.measure_all(*seed, **shorter).items()}
    assert study.measure is not None  # noqa: S101 - a study measures in exactly one way
    arguments = {**study.arguments(cell.arm), **cell.chosen, **shorter}
    return {cell.arm: _floats(study.measure(cell.arm, *seed, **arguments))}


def _train_plans(
    study: Study, seed: int, shorter: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    from trainplan.lab.comparison import compare
    from trainplan.lab.experiment import Arm

    arms = [Arm(name, plan) for name in study.names if isinstance(plan := study.plan(name), Plan)]
    assert study.workload is not None  # noqa: S101 - the caller has looked
    compared = compare(arms, workload=study.workload, seeds=(seed,), jobs=0, **shorter)
    found = {}
    for name in study.names:
        metrics = compared.runs[name, seed].metrics
        found[name] = {key: float(values[-1]) for key, values in metrics.items() if len(values)}
        found[name]["loss"] = compared.runs[name, seed].final()  # infinite if it diverged
    return found


def _floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


class _Bench:
    """Makes measurements, or finds them in the cache."""

    def __init__(
        self,
        study: Study,
        source: str,
        quick: bool,
        jobs: int,
        cache: Path | None,
        watcher: Watcher,
    ) -> None:
        self.study, self.source, self.quick, self.jobs = study, source, quick, jobs
        self.cache, self.watcher = cache, watcher
        stamp = [digests(study, source), package_digest(), decides_numbers(environment(1))]
        self.stamp = json.dumps(stamp, sort_keys=True, default=repr)
        self.known: dict[str, Measurement] = {}
        self.made: set[str] = set()
        self.used: set[str] = set()
        if cache is not None:
            self.known = {row["key"]: _measurement(row) for row in read_rows(cache)}
            _drop_torn_line(cache)

    @property
    def earlier(self) -> float:
        """Seconds that the measurements found in the cache took, with as many at a time as now."""
        return sum(self.known[key].seconds for key in self.used - self.made) / self.jobs

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all measurements, whenever they were made."""
        return sum(self.known[key].cpu_seconds for key in self.used)

    def measure_seeds(
        self, title: str, seeds: Sequence[int], chosen: Mapping[str, Mapping[str, Any]]
    ) -> dict[int, SeedResults]:
        """Every arm on every seed."""
        arms = self.study.names if self.study.measure is not None else (ALL,)
        cells = [Cell(arm, seed, chosen.get(arm, {}), self.quick) for seed in seeds for arm in arms]
        found = self.measure(title, cells)
        merged: dict[int, SeedResults] = {}
        for cell, results in zip(cells, found, strict=True):
            merged[cell.seed] = {**merged.get(cell.seed, {}), **results}
        return merged

    def measure(self, title: str, cells: Sequence[Cell]) -> list[SeedResults]:
        """The results of the cells, in their order."""
        keys = [cell.key(self._context(cell)) for cell in cells]
        missing = [cell for cell, key in zip(cells, keys, strict=True) if key not in self.known]
        self.watcher.stage(title, len(cells), len(cells) - len(missing))
        for cell, measurement in self._make(missing):
            self._keep(cell, measurement)
            self.watcher.measured(cell, measurement.seconds)
        self.used.update(keys)
        return [self.known[key].results for key in keys]

    def _context(self, cell: Cell) -> str:
        """What a measurement depends on besides the cell."""
        arms = self.study.names if cell.arm == ALL else (cell.arm,)
        return self.stamp + repr([(arm, self.study.arguments(arm)) for arm in arms])

    def _make(self, cells: Sequence[Cell]) -> Iterable[tuple[Cell, Measurement]]:
        if self.source and cells:
            yield from in_processes(self.source, cells, self.jobs)
            return
        for cell in cells:
            yield cell, timed(partial(measure_cell, self.study, cell))

    def _keep(self, cell: Cell, measurement: Measurement) -> None:
        key = cell.key(self._context(cell))
        self.known[key] = measurement
        self.made.add(key)
        if self.cache is None:
            return
        row = {
            "key": key,
            "arm": cell.arm,
            "seed": cell.seed,
            "chosen": cell.chosen,
            "results": measurement.results,
            "seconds": round(measurement.seconds, 3),
            "cpu_seconds": round(measurement.cpu_seconds, 3),
        }
        with self.cache.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, default=repr) + "\n")


def _measurement(row: Mapping[str, Any]) -> Measurement:
    return Measurement(row["results"], row["seconds"], row.get("cpu_seconds", 0.0))


def _tune(
    study: Study, bench: _Bench
) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Choose the values of `Tuned` arguments; also everything that was measured for it."""
    grids = {arm: _grid(study.arguments(arm)) for arm in study.names}
    count = 1 if bench.quick else study.tuning_seeds
    seeds = range(TUNING_SEEDS_FROM, TUNING_SEEDS_FROM + count)
    cells = [
        Cell(arm, seed, choice, bench.quick)
        for arm, grid in grids.items()
        for choice in grid
        for seed in seeds
    ]
    found = bench.measure("tuning", cells) if cells else []
    tried: dict[str, list[dict[str, Any]]] = {}
    for cell, results in zip(cells, found, strict=True):
        value = results[cell.arm][study.metric]
        tried.setdefault(cell.arm, []).append(
            {**cell.chosen, "seed": cell.seed, study.metric: value}
        )
    chosen = {}
    for arm, rows in tried.items():
        scores = np.array([row[study.metric] for row in rows]).reshape(-1, count).mean(axis=1)
        signed = scores if study.direction == "lower" else -scores
        best = int(np.argmin(np.where(np.isfinite(signed), signed, math.inf)))
        chosen[arm] = grids[arm][best]
    return chosen, tried


def _grid(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    tuned = {name: value.values for name, value in arguments.items() if isinstance(value, Tuned)}
    if not tuned:
        return []
    return [dict(zip(tuned, values, strict=True)) for values in itertools.product(*tuned.values())]


def digests(study: Study, source: str) -> dict[str, Any]:
    """SHA-256 of the study's file, of its data as it says itself, and of its plans."""
    found: dict[str, Any] = {}
    code: Callable[..., Any] | None = study.measure or study.measure_all
    path = (
        Path(code.__code__.co_filename) if code is not None and hasattr(code, "__code__") else None
    )
    if source and Path(source).is_file():
        path = Path(source)
    if path is not None and path.is_file():
        found["study"] = hashlib.sha256(path.read_bytes()).hexdigest()
    if study.data is not None:
        found["data"] = study.data()
    plans = {arm: plan.digest for arm in study.names if (plan := study.plan(arm)) is not None}
    return {**found, "plans": plans} if plans else found


@lru_cache(maxsize=1)
def package_digest() -> str:
    """SHA-256 of the package's own sources: a cached measurement is one by the same code."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a kill has torn, so that the next one starts on its own."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])
