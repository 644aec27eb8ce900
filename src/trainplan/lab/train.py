"""The training loop of the lab: one segment, from the state of its parent to its end.

The loop is the usual one. Around it: rows are appended as they come, the whole state is saved
every so often and at the end, and a run that is stopped at any moment continues from its last
checkpoint to the same bits. That holds because data and randomness are functions of (seed, step),
so the state is the model, the optimizer, the plan's controllers, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from trainplan.integrations.torch import attach
from trainplan.lab import checkpoint
from trainplan.lab.job import SegmentJob
from trainplan.lab.rewind import Rewind
from trainplan.lab.store import Outcome, RunDirectoryError, SegmentDirectory, file_digest
from trainplan.lab.workload import WorkloadSpec, check_data, check_knobs, check_task
from trainplan.plan import Plan

Report = Callable[[int, float], bool]
"""Told the completed updates and the loss after each update; true asks the loop to stop."""


@dataclass
class _Progress:
    """What a checkpoint holds besides the task: where the loop is."""

    step: int
    rows_bytes: int = 0
    seconds: float = 0.0
    tokens: int = 0


def train_segment(job: SegmentJob, report: Report) -> Outcome | None:
    """Train a segment to its end, or until ``report`` asks to stop.

    Returns:
        The outcome, also written to the directory; ``None`` if it was stopped before its end, with
        its state saved.

    Raises:
        RunDirectoryError: If a checkpoint cannot be restored.
        PlanError: If the workload or the plan cannot be used.
    """
    directory = SegmentDirectory(Path(job.directory))
    directory.root.mkdir(parents=True, exist_ok=True)
    loop = _Loop(job, directory)
    with _append(directory.rows_path, loop.progress.rows_bytes) as rows:
        diverged_at = loop.run(rows, report)
        _sync(rows)
    if diverged_at is None and loop.progress.step < job.stop:
        return None
    outcome = Outcome(
        stop=loop.progress.step,
        diverged_at=diverged_at,
        weights="" if diverged_at is not None else checkpoint.weights_digest(loop.task.model),
        rows_digest=file_digest(directory.rows_path),
        seconds=loop.progress.seconds,
        tokens=loop.progress.tokens,
    )
    if job.keep_end and diverged_at is None:
        loop.save(directory.end_path)
    directory.finish(outcome)
    return outcome


class _Loop:
    """One task in training. It is a class because a stop may come between any two steps."""

    def __init__(self, job: SegmentJob, directory: SegmentDirectory) -> None:
        self.job = job
        self.directory = directory
        spec = WorkloadSpec.from_dict(job.workload)
        workload = spec.load()  # first, because its module may register controllers
        plan = Plan.from_dict(job.plan)
        torch.manual_seed(job.seed)
        self.task = check_task(workload.build(job.seed), f"workload {spec.path!r}")
        check_data(plan)
        self.task_knobs = check_knobs(plan.knobs, self.task)
        if len(self.task_knobs) == len(plan.knobs):
            plan = plan.replace(lr=self.task.optimizer.defaults["lr"])  # the optimizer's own, kept
        self.listens = bool(plan.controllers)
        self.attached = attach(plan, self.task.optimizer)
        self.rewind = Rewind(self.task, self.attached)
        self.progress = self._restore()
        self.rewind.connect()

    def _restore(self) -> _Progress:
        if self.directory.resume_path.exists():
            path = self.directory.resume_path
        elif self.job.parent is not None:
            path = SegmentDirectory(Path(self.job.parent)).end_path
        else:
            return _Progress(self.job.start)
        extra = checkpoint.load(path, self.task)
        self.attached.load_state_dict(extra["plan"])
        self.rewind.load_state_dict(extra["rewind"])
        if path == self.directory.resume_path:
            return _Progress(**extra["progress"])
        return _Progress(self.job.start)

    def save(self, path: Path) -> None:
        """Write all state to ``path``."""
        extra = {
            "plan": self.attached.state_dict(),
            "rewind": self.rewind.state_dict(),
            "progress": vars(self.progress),
        }
        checkpoint.save(path, self.task, extra)

    def run(self, rows: IO[bytes], report: Report) -> int | None:
        """Train on; return the completed updates at which the loss was not finite, if it was."""
        job, progress, task = self.job, self.progress, self.task
        next_save = time.monotonic() + job.checkpoint_seconds
        while progress.step < job.stop:
            begin = time.perf_counter()
            row = self._update(self.attached.clock.steps)
            progress.seconds += time.perf_counter() - begin
            progress.tokens += task.tokens_per_batch
            progress.step += 1
            loss = row["loss"]
            self._write(rows, {"step": progress.step, **_finite(row)})
            if not self.rewind.went_back() and not math.isfinite(loss):
                return progress.step
            if progress.step % job.eval_every == 0 or (
                job.eval_at_stop and progress.step == job.stop
            ):
                metrics = task.evaluate()
                self._write(rows, {"step": progress.step, "eval": _finite(metrics)})
                if self.listens:
                    self.attached.observe(**{f"eval_{name}": v for name, v in metrics.items()})
                if not math.isfinite(metrics["loss"]) and not self.rewind.trying:
                    return progress.step
            stopping = report(progress.step, loss)
            if progress.step < job.stop and (stopping or time.monotonic() >= next_save):
                _sync(rows)
                self.save(self.directory.resume_path)
                next_save = time.monotonic() + job.checkpoint_seconds
            if stopping:
                return None
        return None

    def _update(self, step: int) -> dict[str, float]:
        """One optimizer step; the loss before it and, if asked for, the gradient's length.

        ``step`` counts the updates that led to the present state. The rows count all updates,
        which are more if a controller has gone back.
        """
        task = self.task
        torch.manual_seed(_step_seed(self.job.seed, step))
        if self.task_knobs:
            self.attached.apply()
            task.apply(dict(self.attached.values))  # type: ignore[attr-defined]
        loss = task.loss(task.batch(step))
        task.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        row = self._gradient_norms() if self.job.record_grad_norms else {}
        limit = getattr(task, "max_grad_norm", None)
        if limit is not None:
            torch.nn.utils.clip_grad_norm_(task.model.parameters(), limit)
        task.optimizer.step()
        row = {"loss": loss.item(), **row}
        if self.listens:
            row["lr"] = float(task.optimizer.param_groups[0]["lr"])  # not known beforehand
            self.attached.observe(loss=row["loss"])
        return row

    def _gradient_norms(self) -> dict[str, float]:
        gradients = [p.grad for p in self.task.model.parameters() if p.grad is not None]
        squares = torch.stack(torch._foreach_norm(gradients, 2))
        absolutes = torch.stack(torch._foreach_norm(gradients, 1))
        return {"grad_l2": squares.norm().item(), "grad_l1": absolutes.sum().item()}

    def _write(self, rows: IO[bytes], row: Mapping[str, Any]) -> None:
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        rows.write(line)
        rows.flush()
        self.progress.rows_bytes += len(line)


def _append(path: Path, valid_bytes: int) -> IO[bytes]:
    """Open for appending after the first ``valid_bytes`` bytes; later ones are written again."""
    file = path.open("ab")
    size = file.seek(0, os.SEEK_END)
    if size < valid_bytes:
        file.close()
        raise RunDirectoryError(
            f"{path} has {size} bytes, its checkpoint expects {valid_bytes}: delete "
            f"{path.parent} to train that part again"
        )
    file.truncate(valid_bytes)
    return file


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _finite(row: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


def _step_seed(seed: int, step: int) -> int:
    """Seed of PyTorch's generator for one step: neighbours are unrelated."""
    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
