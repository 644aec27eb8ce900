"""Find out what a path holds, and read it."""

from __future__ import annotations

from pathlib import Path

from trainplan.laws.readers import mlflow, tables, tensorboard, transformers, wandb
from trainplan.laws.readers.raw import CurveError, RawRun

_KINDS = (
    "trainer_state.json, TensorBoard event files, a wandb directory or CSV export, an MLflow "
    "database or mlruns directory, Lightning's metrics.csv, a CSV, JSON or JSONL table, or a "
    "directory of trainplan compare"
)


def read(path: Path, step: str | None = None) -> list[RawRun]:
    """Read all runs that a file or directory holds.

    Args:
        path: What a trainer wrote.
        step: Name of the column that counts steps, where it has an unusual name.

    Raises:
        CurveError: If there is nothing, or nothing that can be read.
    """
    if path.is_dir():
        return _directory(path, step)
    if not path.is_file():
        raise CurveError("there is no such file or directory", place=str(path))
    return _file(path, step)


def _file(path: Path, step: str | None) -> list[RawRun]:
    if tensorboard.MARK in path.name:
        return [tensorboard.read_event_files([path], "", str(path))]
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise CurveError(f"cannot be read: {error.strerror}", place=str(path)) from None
    if head.startswith(mlflow.SQLITE):
        return mlflow.read_database(path)
    if head.startswith(wandb.MARK):
        return [wandb.read_file(path)]
    if not head.strip():
        raise CurveError("the file is empty", place=str(path))
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    suffix = path.suffix.lower()
    if suffix in {".jsonl", ".ndjson"} or (first == b"{" and suffix != ".json"):
        return tables.read_jsonl(path, step)
    if suffix == ".json" or first in (b"{", b"["):
        return transformers.read_json(path, step)
    return tables.read_csv(path, step)


def _directory(path: Path, step: str | None) -> list[RawRun]:
    if (path / "manifest.json").is_file() and (path / "segments").is_dir():
        return _comparison(path)
    state = transformers.newest_state(path)
    if state is not None:
        return transformers.read_json(state)
    if (path / "mlflow.db").is_file():
        return mlflow.read_database(path / "mlflow.db")
    if mlflow.is_store(path):
        return mlflow.read_store(path)
    if any(path.rglob(f"*{tensorboard.MARK}*")):
        return tensorboard.read_events(path)
    if files := wandb.files_in(path):
        return wandb.read_files(files)
    for name in ("metrics.csv", "metrics.jsonl"):
        if (path / name).is_file():
            return _file(path / name, step)
    raise CurveError("holds no log that is known", place=str(path), remedy=f"Known are: {_KINDS}")


def _comparison(path: Path) -> list[RawRun]:
    file = path / "curves.jsonl"
    if not file.is_file():
        raise CurveError(
            "this comparison has no curves.jsonl yet",
            place=str(path),
            remedy="It is written when the comparison is done: finish it with "
            f"trainplan compare --out {path} --resume",
        )
    return tables.read_jsonl(file, "step")
