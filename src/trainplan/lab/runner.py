"""Train all segments of an experiment, some at a time, and stop cleanly when asked.

Workers are processes with one PyTorch thread each, so the number of workers changes how long an
experiment takes and nothing else. A segment is started when its parent is done; among those that
can start, the one with the longest way still to go is first.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from trainplan.lab.job import SegmentJob
from trainplan.lab.segments import Graph
from trainplan.lab.store import Outcome, RunDirectory
from trainplan.lab.workload import require_installed

_GRACE_SECONDS = 60.0
_Message = Mapping[str, Any]


class LabError(RuntimeError):
    """Training could not go on; the message says why and where the details are."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped from outside, with its state saved."""


class Listener(Protocol):
    """Is told what happens while segments are trained."""

    def begin(self, graph: Graph) -> None:
        """Training of a graph begins."""

    def progress(self, key: str, step: int, loss: float | None) -> None:
        """A segment has come to ``step`` completed updates; the loss if there is a new one."""

    def done(self, key: str) -> None:
        """A segment is complete."""


class Watcher(Listener, Protocol):
    """Is told what happens in a comparison as well."""

    def stage(self, title: str) -> None:
        """A stage begins: the tuning, or the comparison itself."""

    def warn(self, message: str) -> None:
        """Something the reader of the results should know."""


class Silent:
    """A listener that says nothing."""

    def begin(self, graph: Graph) -> None:
        """Say nothing."""

    def progress(self, key: str, step: int, loss: float | None) -> None:
        """Say nothing."""

    def done(self, key: str) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class JobSettings:
    """What all segments of an experiment have in common. See ``SegmentJob``."""

    workload: Mapping[str, Any]
    plans: Mapping[str, Mapping[str, Any]]
    eval_every: int
    record_grad_norms: bool
    checkpoint_seconds: float


def run_segments(
    graph: Graph,
    directory: RunDirectory,
    settings: JobSettings,
    *,
    jobs: int,
    listener: Listener | None = None,
    first: Collection[str] = (),
) -> dict[str, Outcome]:
    """Train every segment of ``graph`` that is not yet done in ``directory``.

    Args:
        graph: What to train.
        directory: Where; segments that are complete there are not trained again.
        settings: Shared by all segments.
        jobs: Number of worker processes; 0 trains in this process.
        listener: Is told how it goes.
        first: Keys of segments to start before all others that could start as well.

    Returns:
        The outcome of each segment, by key.

    Raises:
        Interrupted: On Ctrl-C, after the workers have saved their states.
        LabError: If a segment fails; the others are stopped with their states saved.
    """
    require_installed("torch", extra="lab")
    schedule = _Schedule(graph, directory, settings, listener or Silent(), first)
    if jobs == 0:
        _run_here(schedule)
    elif not schedule.complete:
        with _Pool(min(jobs, schedule.waiting), directory.root) as pool:
            _run_in_pool(schedule, pool)
    return schedule.outcomes


class _Schedule:
    """Which segments are done, which can start, and what starting one means."""

    def __init__(
        self,
        graph: Graph,
        directory: RunDirectory,
        settings: JobSettings,
        listener: Listener,
        first: Collection[str],
    ) -> None:
        self.graph = graph
        self.directory = directory
        self.settings = settings
        self.listener = listener
        self.outcomes: dict[str, Outcome] = {}
        self._order = {key: index for index, key in enumerate(graph.segments)}
        self._rank = {key: graph.remaining_path(key) for key in graph.segments}
        self._first = frozenset(first)
        self._waiting: set[str] = set()
        listener.begin(graph)
        self._take_stock()

    def _take_stock(self) -> None:
        """Sort the segments into those that are done and those that wait."""
        for key in reversed(list(self.graph.segments)):
            place = self.directory.segment(key)
            outcome = place.outcome()
            needed = any(child in self._waiting for child in self.graph.children.get(key, ()))
            lost = needed and outcome and outcome.diverged_at is None
            if lost and not place.end_path.exists():
                place.reopen()
                outcome = None
            if outcome is None:
                self._waiting.add(key)
            else:
                self.outcomes[key] = outcome
        for key, outcome in list(self.outcomes.items()):
            self.listener.done(key)
            if outcome.diverged_at is not None:
                self._skip_below(key, outcome.diverged_at)

    def next(self) -> str | None:
        """Take a segment that can start; ``None`` if there is none at the moment."""
        ready = [key for key in self._waiting if self._can_start(key)]
        if not ready:
            return None
        key = min(ready, key=self._urgency)
        self._waiting.discard(key)
        return key

    def _urgency(self, key: str) -> tuple[bool, int, int]:
        return key not in self._first, -self._rank[key], self._order[key]

    @property
    def complete(self) -> bool:
        return len(self.outcomes) == len(self.graph.segments)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def job(self, key: str) -> SegmentJob:
        segment, settings = self.graph.segments[key], self.settings
        parent = segment.parent
        return SegmentJob(
            key=key,
            seed=segment.seed,
            start=segment.start,
            stop=segment.stop,
            directory=str(self.directory.segment(key).root),
            parent=None if parent is None else str(self.directory.segment(parent).root),
            plan=settings.plans[segment.arm],
            workload=settings.workload,
            eval_every=settings.eval_every,
            eval_at_stop=segment.ends,
            record_grad_norms=settings.record_grad_norms,
            keep_end=key in self.graph.children,
            checkpoint_seconds=settings.checkpoint_seconds,
        )

    def finished(self, key: str) -> None:
        """Take note of a segment that a worker completed."""
        outcome = self.directory.segment(key).outcome()
        if outcome is None:
            raise LabError(f"segment {key} was reported as done and has no outcome")
        self._record(key, outcome)
        if outcome.diverged_at is not None:
            self._skip_below(key, outcome.diverged_at)
        self._drop_end_of_parent(key)

    def _record(self, key: str, outcome: Outcome) -> None:
        self.outcomes[key] = outcome
        self.listener.done(key)

    def _can_start(self, key: str) -> bool:
        parent = self.graph.segments[key].parent
        return parent is None or parent in self.outcomes

    def _skip_below(self, key: str, diverged_at: int) -> None:
        """What continues a diverged run has diverged as well; nothing is trained."""
        for child in self.graph.children.get(key, ()):
            if child in self.outcomes:
                continue
            outcome = Outcome(diverged_at, diverged_at, "", "", 0.0, 0)
            place = self.directory.segment(child)
            place.root.mkdir(parents=True, exist_ok=True)
            place.finish(outcome)
            self._waiting.discard(child)
            self._record(child, outcome)
            self._skip_below(child, diverged_at)

    def _drop_end_of_parent(self, key: str) -> None:
        """Delete a state that all continuations have used."""
        parent = self.graph.segments[key].parent
        if parent is not None and all(c in self.outcomes for c in self.graph.children[parent]):
            self.directory.segment(parent).end_path.unlink(missing_ok=True)


def _run_here(schedule: _Schedule) -> None:
    import torch

    from trainplan.lab.train import train_segment

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        while (key := schedule.next()) is not None:
            here = key

            def report(step: int, loss: float, key: str = here) -> bool:
                schedule.listener.progress(key, step, loss)
                return False

            train_segment(schedule.job(key), report)
            schedule.finished(key)
    finally:
        torch.set_num_threads(threads)


def _run_in_pool(schedule: _Schedule, pool: _Pool) -> None:
    idle = list(range(pool.size))
    try:
        while not schedule.complete:
            while idle and (key := schedule.next()) is not None:
                pool.send(idle.pop(0), {"job": asdict(schedule.job(key))})
            worker, message = pool.receive()
            kind, key = message["kind"], message.get("key", "")
            if kind == "progress":
                schedule.listener.progress(key, message["step"], message["loss"])
            elif kind == "done":
                schedule.finished(key)
                idle.append(worker)
            else:
                raise LabError(_failure(message, pool.log(worker)))
    except KeyboardInterrupt:
        pool.stop()
        raise Interrupted from None


def _failure(message: _Message, log: Path) -> str:
    text = str(message["message"])
    return f"{text} (details: {log})" if message.get("see_log") else text


class _Pool:
    """Worker processes and the messages that they send."""

    def __init__(self, size: int, root: Path) -> None:
        self.size = size
        self._messages: queue.Queue[tuple[int, _Message]] = queue.Queue()
        (root / "logs").mkdir(exist_ok=True)
        self._logs = [root / "logs" / f"worker-{index}.log" for index in range(size)]
        self._workers = [self._start(log) for log in self._logs]
        for index, worker in enumerate(self._workers):
            threading.Thread(target=self._listen, args=(index, worker), daemon=True).start()

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop(grace=_GRACE_SECONDS)

    def log(self, worker: int) -> Path:
        return self._logs[worker]

    def send(self, worker: int, message: _Message) -> None:
        pipe = self._workers[worker].stdin
        # A worker that has died closes its output too, and receive() reports that.
        with suppress(BrokenPipeError, ValueError):
            if pipe is not None:
                pipe.write(json.dumps(message) + "\n")
                pipe.flush()

    def receive(self) -> tuple[int, _Message]:
        while True:
            # A timeout keeps the wait interruptible on every platform.
            with suppress(queue.Empty):
                return self._messages.get(timeout=0.5)

    def stop(self, grace: float = _GRACE_SECONDS) -> None:
        """Let the workers save their states and end; kill those that do not."""
        for index, worker in enumerate(self._workers):
            self.send(index, {"end": True})
            with suppress(BrokenPipeError):
                if worker.stdin is not None:
                    worker.stdin.close()
        try:
            for worker in self._workers:
                worker.wait(timeout=grace)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            for worker in self._workers:
                worker.kill()
                worker.wait()

    def _start(self, log: Path) -> subprocess.Popen[str]:
        environment = dict(os.environ)
        # The worker must find what this process finds, the current folder included.
        path = [os.path.abspath(entry) for entry in sys.path]
        environment["PYTHONPATH"] = os.pathsep.join(path)
        environment.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONHASHSEED="0")
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "trainplan.lab.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env=environment,
                # Ctrl-C reaches the parent alone, which then asks the workers to save and end.
                start_new_session=True,
            )

    def _listen(self, index: int, worker: subprocess.Popen[str]) -> None:
        if worker.stdout is not None:
            for line in worker.stdout:
                self._messages.put((index, json.loads(line)))
        code = worker.wait()
        reason = (
            f"a worker was killed (signal {-code}); if memory ran out, use fewer --jobs"
            if code < 0
            else f"a worker ended unexpectedly (exit code {code})"
        )
        self._messages.put((index, {"kind": "failed", "message": reason, "see_log": True}))
