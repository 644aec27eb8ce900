"""MLflow's stores, read without MLflow: ``mlflow.db`` (SQLite) and ``mlruns`` directories.

In the database a NaN is stored as 0 with ``is_nan = 1``. In directories each metric is a file of
lines ``timestamp value step``; slashes in its name are folders.
"""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from trainplan.laws.readers.raw import CurveError, RawRun, Series, number, text_of

SQLITE = b"SQLite format 3\x00"


def read_database(path: Path) -> list[RawRun]:
    """Read every run of an SQLite store; the file is opened read-only."""
    try:
        with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) as connection:
            names = _run_names(connection)
            rows = connection.execute(
                "SELECT run_uuid, key, step, value, is_nan FROM metrics ORDER BY timestamp, rowid"
            ).fetchall()
        connection.close()
    except sqlite3.Error as error:
        raise CurveError(
            f"not a database of MLflow: {error}",
            place=str(path),
            remedy="It needs a table metrics (key, value, timestamp, run_uuid, step, is_nan)",
        ) from None
    runs: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for run, key, step, value, is_nan in rows:
        try:
            point = (number(step), math.nan if is_nan or value is None else number(value))
        except (TypeError, ValueError):
            raise CurveError(
                "a metric is not a number", place=f"{path}: {key}", value=value
            ) from None
        runs[str(run)][str(key)].append(point)
    return [
        RawRun(names.get(run, run), str(path), {k: Series.of(p) for k, p in metrics.items()})
        for run, metrics in runs.items()
    ]


def _run_names(connection: sqlite3.Connection) -> dict[str, str]:
    """Names of runs by id; a name that two runs share is made unique by the id."""
    try:
        rows = connection.execute("SELECT run_uuid, name FROM runs").fetchall()
    except sqlite3.Error:
        return {}
    names = [name for _, name in rows]
    return {
        str(run): str(name) if name and names.count(name) == 1 else f"{name or ''}{str(run)[:8]}"
        for run, name in rows
    }


def is_store(directory: Path) -> bool:
    """Whether a directory is an ``mlruns`` store, an experiment in one, or a run."""
    return next(_run_folders(directory), None) is not None


def _run_folders(directory: Path) -> Iterator[Path]:
    for pattern in ("meta.yaml", "*/meta.yaml", "*/*/meta.yaml"):
        for meta in sorted(directory.glob(pattern)):
            if (meta.parent / "metrics").is_dir():
                yield meta.parent


def read_store(directory: Path) -> list[RawRun]:
    """Read every run below an ``mlruns`` directory."""
    return [_run(folder) for folder in _run_folders(directory)]


def _run(folder: Path) -> RawRun:
    name_file = folder / "tags" / "mlflow.runName"
    name = text_of(name_file).strip() if name_file.is_file() else folder.name
    series = {}
    root = folder / "metrics"
    for file in sorted(root.rglob("*")):
        if file.is_file():
            series[file.relative_to(root).as_posix()] = Series.of(_lines(file))
    return RawRun(name, str(folder), series)


def _lines(file: Path) -> Iterator[tuple[float, float]]:
    for i, line in enumerate(text_of(file).splitlines()):
        parts = line.split()
        if not parts:
            continue
        try:
            yield (number(parts[2]) if len(parts) > 2 else float(i)), number(parts[1])
        except (IndexError, ValueError):
            raise CurveError(
                f"line {i + 1} is not 'timestamp value step'", place=str(file), value=line
            ) from None
