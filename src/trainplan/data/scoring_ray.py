"""Score parts of a data set on a Ray cluster, or on one that is started for it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from trainplan._extras import require
from trainplan.data.scoring_workers import Part, Scores, score_batches
from trainplan.errors import PlanError


def score_with_ray(
    dataset: Any,
    function: Callable[[Any], Any],
    parts: Sequence[Part],
    size: int,
    workers: int,
    keep: Callable[[int, Scores], None],
) -> None:
    """As `trainplan.data.scoring_workers.score_in_processes`, with Ray's workers of one processor.

    They are those of the cluster that ``ray.init`` has connected to; else Ray is started on this
    machine, and stopped at the end.

    Raises:
        PlanError: If the cluster is too small, or a worker dies.
    """
    if not parts:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
    ray = require("ray", extra="ray")
    with _cluster(ray, workers):
        processors = int(ray.cluster_resources().get("CPU", 0))
        if processors < workers:
            raise PlanError(
                f"the cluster has {processors} processors, and would wait for more without end",
                place="workers",
                value=workers,
                remedy=f"Give at most {processors}",
            )
        actor = ray.remote(num_cpus=1, max_concurrency=2)(_Worker)
        sent = ray.put((dataset, function))
        actors = [actor.remote(sent, size) for _ in range(min(workers, len(parts)))]
        try:
            _share(ray, actors, parts, keep)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayActorError as error:
            raise PlanError(
                f"a worker that scored died: {error}", place="workers", value=workers
            ) from error
        finally:
            for one in actors:
                ray.kill(one)


def _share(
    ray: Any, actors: Sequence[Any], parts: Sequence[Part], keep: Callable[[int, Scores], None]
) -> None:
    """Give each worker a part, and another one when it is done."""
    waiting = iter(parts)
    running: dict[Any, tuple[Any, int]] = {}

    def give(one: Any) -> None:
        part = next(waiting, None)
        if part is not None:
            running[one.score.remote(part)] = one, part[0]

    try:
        for one in actors:
            give(one)
        while running:
            ready, _ = ray.wait(list(running), num_returns=1)
            one, start = running[ready[0]]
            keep(start, ray.get(ready[0]))
            del running[ready[0]]
            give(one)
    finally:
        for one in actors:
            one.stop.remote()
        for task, (_, start) in running.items():
            # Of the parts that failed, one is raised already.
            with contextlib.suppress(ray.exceptions.RayError):
                keep(start, ray.get(task))


@contextlib.contextmanager
def _cluster(ray: Any, processors: int) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    ray.init(
        num_cpus=processors, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    try:
        yield
    finally:
        ray.shutdown()


class _Worker:
    """Scores parts in one thread; another one tells it to stop."""

    def __init__(self, sent: tuple[Any, Callable[[Any], Any]], size: int) -> None:
        self.dataset, self.function = sent
        self.size = size
        self.stopped = threading.Event()

    def score(self, part: Part) -> Scores:
        found = [np.empty(0)]
        batches = score_batches(self.dataset, self.function, *part, self.size)
        while not self.stopped.is_set() and (batch := next(batches, None)) is not None:
            found.append(batch[1])
        return np.concatenate(found)

    def stop(self) -> None:
        self.stopped.set()
