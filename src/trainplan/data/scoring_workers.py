"""Score parts of a data set in worker processes, and lose nothing when they are interrupted."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan._processes import begin_worker, one_thread_each
from trainplan.errors import PlanError

Scores = npt.NDArray[np.float64]
Part = tuple[int, int]
"""The first example of a stretch, and the one after its last."""

_MODULE = "Define it at the top level of a module, or score with workers=1"


def score_batches(
    dataset: Any, function: Callable[[Any], Any], start: int, stop: int, size: int
) -> Iterator[tuple[int, Scores]]:
    """Score the examples from ``start`` to before ``stop``, ``size`` at a time.

    Yields:
        The number of a batch's first example, and (B,) scores.

    Raises:
        PlanError: If the function returns anything but one number per example.
    """
    for first in range(start, stop, size):
        last = min(first + size, stop)
        values = np.asarray(function(_rows(dataset, first, last)), dtype=np.float64)
        if values.shape != (last - first,):
            raise PlanError(
                f"the function returned {values.shape} for {last - first} examples",
                place="function",
                value=function,
                remedy="Return one number per example",
            )
        yield first, values


def _rows(dataset: Any, start: int, stop: int) -> Any:
    if hasattr(dataset, "column_names") or isinstance(dataset, (list, tuple, np.ndarray)):
        return dataset[start:stop]
    return [dataset[i] for i in range(start, stop)]


def score_in_processes(
    dataset: Any,
    function: Callable[[Any], Any],
    parts: Sequence[Part],
    size: int,
    workers: int,
    keep: Callable[[int, Scores], None],
) -> None:
    """Score parts of a data set in worker processes.

    Args:
        dataset: Sent to each worker once, as the function is.
        function: As `score_batches` takes it.
        parts: What to score; a worker takes one at a time.
        size: Examples of a batch.
        workers: How many processes.
        keep: Called in this process with a part's first example and its scores, as parts are
            finished. After an interrupt, or an error in another part, it gets the scores of all
            batches that were begun, so that a part may be short, before the exception goes on.

    Raises:
        PlanError: If the data set or the function cannot be sent, or a worker dies.
    """
    if not parts:
        return
    sent = {"dataset": _pickled(dataset, "dataset"), "function": _pickled(function, "function")}
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pending: dict[Future[Scores], int] = {}
    with one_thread_each():
        pool = ProcessPoolExecutor(
            min(workers, len(parts)),
            mp_context=context,
            initializer=_begin,
            initargs=(sent, size, stop),
        )
        try:
            for part in parts:
                pending[pool.submit(_score, part)] = part[0]
            for future in as_completed(list(pending)):
                keep(pending[future], future.result())
                del pending[future]
        except BrokenProcessPool as error:
            raise PlanError(
                "a process that scored died; it may have run out of memory",
                place="workers",
                value=workers,
                remedy="Use fewer; a script needs `if __name__ == '__main__':` around its calls",
            ) from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            for future, start in pending.items():
                if not future.cancelled() and future.exception() is None:
                    keep(start, future.result())


def _pickled(thing: Any, place: str) -> bytes:
    try:
        return pickle.dumps(thing)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise PlanError(
            f"cannot be sent to a process: {error}", place=place, value=thing, remedy=_MODULE
        ) from error


class _Work:
    """What a worker was sent."""

    sent: dict[str, bytes]
    things: dict[str, Any]
    size: int
    stop: Any


def _begin(sent: dict[str, bytes], size: int, stop: Any) -> None:
    begin_worker()
    _Work.sent, _Work.things, _Work.size, _Work.stop = sent, {}, size, stop


def _thing(place: str) -> Any:
    if place not in _Work.things:
        try:
            _Work.things[place] = pickle.loads(_Work.sent[place])  # noqa: S301 - by the parent
        except (AttributeError, ImportError) as error:
            raise PlanError(
                f"a process cannot find it: {error}", place=place, remedy=_MODULE
            ) from error
    return _Work.things[place]


def _score(part: Part) -> Scores:
    """The scores of a part, or of its first batches if all are to stop."""
    found = [np.empty(0)]
    batches = score_batches(_thing("dataset"), _thing("function"), *part, _Work.size)
    while not _Work.stop.is_set() and (batch := next(batches, None)) is not None:
        found.append(batch[1])
    return np.concatenate(found)
