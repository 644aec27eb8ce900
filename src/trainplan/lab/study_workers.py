"""Make measurements in worker processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainplan._processes import begin_worker, one_thread_each
from trainplan.errors import PlanError
from trainplan.lab.runner import LabError

if TYPE_CHECKING:
    from trainplan.lab.study_runner import Cell


@dataclass(frozen=True)
class Measurement:
    """What one cell gave.

    Attributes:
        results: Metrics by arm.
        seconds: How long it took.
        cpu_seconds: Processor time of its process, all threads; what the machine did besides does
            not count.
    """

    results: Mapping[str, Mapping[str, float]]
    seconds: float
    cpu_seconds: float


def in_processes(
    source: str, cells: Sequence[Cell], jobs: int
) -> Iterable[tuple[Cell, Measurement]]:
    """Measure cells, each in a process of its own for the time being; yield them as they finish.

    Leaving the iteration early, by an interrupt too, ends the processes at once.

    Args:
        source: Where the study is found, see `trainplan.lab.study_loading.load_study`.
        cells: What to measure.
        jobs: How many at a time.

    Raises:
        LabError: If a measurement fails, or a process dies.
    """
    context = multiprocessing.get_context("spawn")
    count = min(jobs, len(cells))
    with one_thread_each():
        pool = ProcessPoolExecutor(count, mp_context=context, initializer=begin_worker)
        finished = False
        try:
            futures = {pool.submit(_measure, source, cell): cell for cell in cells}
            for future in as_completed(futures):
                cell = futures[future]
                yield cell, _result(future, cell)
            finished = True
        finally:
            pool.shutdown(wait=finished, cancel_futures=True)
            if not finished:
                for process in multiprocessing.active_children():
                    process.terminate()


def _result(future: Future[Any], cell: Cell) -> Measurement:
    name = f"{cell.arm or 'all arms'}, seed {cell.seed}"
    try:
        measurement, problem = future.result()
    except BrokenProcessPool as error:
        raise LabError(
            f"the process that measured died (among the last: {name}): it may have run out of "
            "memory; use fewer --jobs and go on with --resume"
        ) from error
    if problem is not None:
        if isinstance(problem, PlanError):
            raise problem
        raise LabError(f"{name}: {problem}")
    assert isinstance(measurement, Measurement)  # noqa: S101 - one of the two is given
    return measurement


def timed(measure: Callable[[], Mapping[str, Mapping[str, float]]]) -> Measurement:
    """Make a measurement in this process and time it."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    results = measure()
    return Measurement(results, time.perf_counter() - begin, time.process_time() - begin_cpu)


def _measure(source: str, cell: Cell) -> tuple[Measurement | None, PlanError | str | None]:
    from trainplan.lab.study_loading import load_study
    from trainplan.lab.study_runner import measure_cell

    try:
        study = load_study(source)
        _use_one_thread()
        return timed(lambda: measure_cell(study, cell)), None
    except PlanError as error:
        return None, error
    except Exception as error:  # noqa: BLE001 - a study is other people's code
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(where.filename)}:{where.lineno}"
        return None, f"{type(error).__name__}: {error} ({place})"


def _use_one_thread() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
