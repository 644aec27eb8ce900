"""``laws.load``: from the logs of a trainer to loss curves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainplan.laws.curves import Curve, clean
from trainplan.laws.readers import read
from trainplan.laws.readers.raw import CurveError, RawRun, Series
from trainplan.laws.readers.tables import pick, plain_name

LOSSES = (
    "val_loss", "eval_loss", "validation_loss", "valid_loss", "val/loss", "eval/loss",
    "validation/loss", "valid/loss", "loss/val", "loss/validation", "loss", "train_loss",
    "train/loss", "training_loss", "loss/train", "lm_loss", "train/loss_step", "train_loss_step",
)  # fmt: skip
"""Names of the loss, in order of preference (validation first: it is far less noisy)."""
RATES = (
    "lr", "learning_rate", "train/learning_rate", "train/lr", "lr/group_0", "lr_group0",
    "lr_adamw", "lr_adam", "lr_sgd", "lr_adamw/pg1", "lr/lr", "optim/lr", "optimizer/lr",
    "learning_rate/group_0", "train/learning_rate/group_0", "step_size",
)  # fmt: skip
"""Names of the learning rate, in order of preference."""


@dataclass(frozen=True)
class Columns:
    """What the caller says about the names in the logs; None means: look for a usual one."""

    loss: str | None = None
    rate: str | None = None
    step: str | None = None


def load(
    *paths: str | os.PathLike[str],
    loss: str | None = None,
    rate: str | None = None,
    step: str | None = None,
    plan: Any = None,
    warmup: int | None = None,
    runs: Sequence[str] | None = None,
    spikes: str = "drop",
) -> list[Curve]:
    """Read loss curves from what a trainer wrote.

    Understands ``trainer_state.json`` (or an output directory) of Transformers and TRL,
    TensorBoard event files, Weights & Biases run files and exported charts, MLflow databases
    and ``mlruns`` directories, Lightning's ``metrics.csv``, plain CSV, JSON and JSONL tables, and
    directories of ``trainplan compare``. What was wrong in a log, and what was done about it, is
    in each curve's ``notes``; `curves.clean` states the rules.

    Args:
        *paths: Files or directories. A run whose loss and rate are in two files (charts are
            exported one at a time) is put together by its name.
        loss: Column of the loss; by default a usual name, validation before training.
        rate: Column of the learning rate; by default a usual name.
        step: Column that counts steps; by default a usual name.
        plan: Where the rate comes from if it was not logged: a plan, a schedule, an array, or a
            path of a plan file; or a mapping of these by the runs' names. It is used in place of
            logged rates.
        warmup: The first step after warm-up; by default the end of the first rise.
        runs: Names of the runs to take; by default all that have a loss. ``wsd`` means ``wsd/0``
            and ``wsd/1`` as well, the seeds of a comparison.
        spikes: "drop", or "keep".

    Raises:
        CurveError: If a file cannot be read or lacks a column; the message has those it has.
    """
    if not paths:
        raise CurveError("no path was given", remedy="laws.load('run/trainer_state.json')")
    raw = [_named(run, Path(path)) for path in paths for run in read(Path(path), step)]
    merged = _merge(raw)
    if runs is not None:
        merged = _chosen(merged, runs)
    columns = Columns(loss, rate, step)
    with_loss = [run for run in merged if _loss_of(run, columns) is not None]
    if not with_loss:
        raise _missing("loss", loss, LOSSES, merged)
    curves = []
    for run in with_loss:
        schedule = _schedule(plan, run.name)
        column, logged = _loss_of(run, columns) or ("", None)
        found = pick(run.series, [rate] if rate else RATES)
        if found is None and schedule is None:
            raise _missing("learning rate", rate, RATES, [run])
        if logged is not None:
            notes = (*run.notes, f"loss from column {column!r}")
            series = run.series[found] if found else None
            curves.append(
                clean(
                    run.name, logged, series, schedule=schedule, warmup=warmup, spikes=spikes,
                    notes=notes,
                )
            )  # fmt: skip
    return curves


def _loss_of(run: RawRun, columns: Columns) -> tuple[str, Series] | None:
    """The loss of a run: the preferred column that has at least two points, else any."""
    names = [columns.loss] if columns.loss else list(LOSSES)
    present = [found for name in names if (found := pick(run.series, [name]))]
    if not present:
        return None
    enough = [name for name in present if run.series[name].steps.size > 1]
    name = (enough or present)[0]
    return name, run.series[name]


def _named(run: RawRun, path: Path) -> RawRun:
    """A run with a name: that of its file, or of the folder if the file's says nothing."""
    if run.name:
        return run
    usual = {"trainer_state", "metrics", "mlflow", "log", "logs", "history"}
    name = path.stem if path.is_file() or not path.suffix else path.name
    if name in usual or name.startswith("events.out"):
        name = path.resolve().parent.name or name
    return RawRun(name, run.source, run.series, run.notes)


def _merge(runs: list[RawRun]) -> list[RawRun]:
    """Put series of equally named runs together where they complete each other."""
    merged: dict[str, RawRun] = {}
    for run in runs:
        name, number = run.name, 2
        while name in merged and _overlap(merged[name], run):
            name, number = f"{run.name} ({number})", number + 1
        before = merged.get(name)
        series = {**before.series, **run.series} if before else run.series
        notes = (*before.notes, *run.notes) if before else run.notes
        merged[name] = RawRun(name, run.source, series, notes)
    return list(merged.values())


def _overlap(a: RawRun, b: RawRun) -> bool:
    return not {plain_name(n) for n in a.series}.isdisjoint(plain_name(n) for n in b.series)


def _chosen(runs: list[RawRun], names: Sequence[str]) -> list[RawRun]:
    known = {run.name: run for run in runs}
    return [known[name] for name in matching(list(known), names)]


def matching(known: Sequence[str], names: Sequence[str]) -> list[str]:
    """The runs that are meant: a name stands for itself, or for all of ``name/...``.

    Runs that differ by their seed are named so; the name before the slash means all of them.

    Raises:
        CurveError: If there is no such run.

    >>> matching(["a/0", "a/1", "b"], ["b", "a"])
    ['b', 'a/0', 'a/1']
    """
    chosen: dict[str, None] = {}
    for name in names:
        found = [run for run in known if run == name] or [
            run for run in known if run.startswith(f"{name}/")
        ]
        if not found:
            raise CurveError(
                "no such run", place="runs", value=name, remedy=f"There are: {', '.join(known)}"
            )
        chosen |= dict.fromkeys(found)
    return list(chosen)


def _schedule(plan: Any, name: str) -> Any:
    from trainplan.plan import Plan

    if isinstance(plan, Mapping) and not isinstance(plan, Plan):
        if name not in plan:
            return None
        plan = plan[name]
    if isinstance(plan, (str, os.PathLike)):
        return Plan.load(plan)
    return plan


def _missing(
    what: str, asked: str | None, usual: Sequence[str], runs: Sequence[RawRun]
) -> CurveError:
    there = sorted({name for run in runs for name in run.series})
    shown = ", ".join(there[:40]) + (", ..." if len(there) > 40 else "")
    notes = [note for run in runs for note in run.notes]
    option = {"loss": "loss=...", "learning rate": "rate=... or plan=..."}[what]
    return CurveError(
        f"no column {asked!r}" if asked else f"no column with a {what}",
        place=runs[0].source if runs else "",
        remedy=f"Columns there are: {shown or 'none'}. Name it with {option}"
        + ("" if asked else f" (looked for {', '.join(usual[:6])}, ...)")
        + (f". Note: {'; '.join(notes[:3])}" if notes else ""),
    )
