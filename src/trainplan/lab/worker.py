"""A process that trains segments: ``python -m trainplan.lab.worker``.

It reads one JSON object per line from standard input (``{"job": {...}}`` or ``{"end": true}``) and
writes one per line to standard output. Text and not pickles crosses the boundary; and because
standard input ends when the parent dies, however it dies, no worker outlives it by more than a
step.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from typing import IO, Any

_REPORT_SECONDS = 0.2


def main() -> None:
    """Train what standard input asks for until it ends."""
    # The protocol keeps the real standard output; what user code prints goes to the log.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(sys.stdin, jobs, stop), daemon=True).start()

    import torch

    from trainplan.lab.job import SegmentJob

    # One thread per worker: results must not depend on how many cores a machine has.
    torch.set_num_threads(1)
    while (job := jobs.get()) is not None and not stop.is_set():
        _send(replies, _train(SegmentJob(**job), stop, replies))


def _listen(
    lines: IO[str], jobs: queue.SimpleQueue[dict[str, Any] | None], stop: threading.Event
) -> None:
    for line in lines:
        message = json.loads(line)
        if "job" not in message:
            break
        jobs.put(message["job"])
    stop.set()
    jobs.put(None)


def _train(job: Any, stop: threading.Event, replies: IO[str]) -> dict[str, Any]:
    from trainplan.errors import PlanError
    from trainplan.lab.store import RunDirectoryError
    from trainplan.lab.train import train_segment

    last = 0.0

    def report(step: int, loss: float) -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last >= _REPORT_SECONDS:
            last = now
            _send(replies, {"kind": "progress", "key": job.key, "step": step, "loss": loss})
        return stop.is_set()

    try:
        outcome = train_segment(job, report)
    except (PlanError, RunDirectoryError) as error:
        return {"kind": "failed", "key": job.key, "message": str(error)}
    except Exception as error:  # noqa: BLE001 - a workload is other people's code
        traceback.print_exc()
        place = f"workload {job.workload['path']!r}, seed {job.seed}"
        return {
            "kind": "failed",
            "key": job.key,
            "message": f"{place}: {type(error).__name__}: {error}",
            "see_log": True,
        }
    return {"kind": "stopped" if outcome is None else "done", "key": job.key}


def _send(replies: IO[str], message: dict[str, Any]) -> None:
    try:
        replies.write(json.dumps(message) + "\n")
        replies.flush()
    except BrokenPipeError:
        os._exit(1)  # the parent is gone, and nobody is left to tell


if __name__ == "__main__":
    main()
