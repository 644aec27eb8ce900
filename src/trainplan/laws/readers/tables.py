"""CSV and JSON-lines logs: plain ones, Lightning's, and the exports of Weights & Biases charts.

A row may leave columns blank (Lightning writes the rate and the loss of one step in two rows);
each column becomes a series of its own. A column that names the run splits the rows into runs.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainplan.laws.readers.raw import CurveError, RawRun, Series, number, text_of

STEPS = ("step", "global_step", "trainer/global_step", "_step", "iteration", "iter", "steps", "it")
"""Names of the column that counts steps, in order of preference; case does not matter."""
RUNS = ("run", "run_name", "run_id", "run_uuid", "experiment", "seed")
"""Names of columns that tell runs apart; if there are several, each combination is a run."""
_BINNED = ("__MIN", "__MAX")


def read_csv(path: Path, step: str | None = None) -> list[RawRun]:
    """Read a table with a header line; the separator may be a comma, semicolon or tab."""
    text = text_of(path)
    header = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=header.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise CurveError(f"not a CSV table: {error}", place=str(path)) from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise CurveError("holds no rows below a header", place=str(path))
    names = [cell.strip() for cell in rows[0]]
    if any(name.endswith(_BINNED) for name in names):
        return read_wandb(names, rows[1:], str(path))
    cells = [dict(zip(names, row, strict=False)) for row in rows[1:]]
    return split_rows(cells, str(path), step)


def read_jsonl(path: Path, step: str | None = None) -> list[RawRun]:
    """Read one JSON object per line; a torn last line is left out and noted."""
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    lines = text_of(path).splitlines()
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if i == len(lines) - 1 and rows:
                notes.append(f"line {i + 1} is torn and was left out")
                break
            raise CurveError(f"line {i + 1} is not JSON: {error}", place=str(path)) from None
        if not isinstance(row, dict):
            raise CurveError(f"line {i + 1} is not an object", place=str(path), value=row)
        rows.append(flat(row))
    return split_rows(rows, str(path), step, tuple(notes))


def flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one, with slashes between the names.

    >>> flat({"step": 1, "train": {"loss": 2.0}})
    {'step': 1, 'train/loss': 2.0}
    """
    out: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping) and prefix.count("/") < 8:
            out |= flat(value, f"{prefix}{key}/")
        else:
            out[f"{prefix}{key}"] = value
    return out


def pick(names: Iterable[str], wanted: Iterable[str]) -> str | None:
    """The first of ``wanted`` that is among ``names``, in the names' own spelling."""
    spelled = {plain_name(name): name for name in reversed(list(names))}
    return next((spelled[plain_name(w)] for w in wanted if plain_name(w) in spelled), None)


def plain_name(name: str) -> str:
    """A column name without its case, spaces and dots: "Train Loss" is train_loss."""
    return name.strip().lower().replace(" ", "_").replace(".", "/").replace("-", "_")


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """All names in the rows, in the order of their first appearance."""
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row)
    return [name for name in names if name]


def split_rows(
    rows: list[dict[str, Any]], source: str, step: str | None, notes: tuple[str, ...] = ()
) -> list[RawRun]:
    """Rows as runs of series."""
    names = columns_of(rows)
    counter = pick(names, [step] if step else STEPS)
    if counter is None:
        raise CurveError(
            f"no column {step!r} that counts steps" if step else "no column that counts steps",
            place=source,
            remedy=f"Columns there are: {', '.join(names) or 'none'}. Name it with step=..., or "
            f"call it one of {', '.join(STEPS)}",
        )
    labels = [name for name in names if plain_name(name) in RUNS]
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        words = (str(row[label]).strip() for label in labels if not _blank(row.get(label)))
        groups["/".join(words)].append(row)
    return [
        RawRun(name, source, _series(group, counter, {counter, *labels}, source), notes)
        for name, group in groups.items()
    ]


def _series(
    rows: list[dict[str, Any]], counter: str, skip: set[str], source: str
) -> dict[str, Series]:
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for i, row in enumerate(rows):
        if _blank(row.get(counter)):
            continue
        try:
            at = number(row[counter])
        except (TypeError, ValueError):
            raise CurveError(
                f"row {i + 1}: the step is not a number",
                place=f"{source}: {counter}",
                value=row[counter],
            ) from None
        for name, value in _numbers(row, skip):
            pairs[name].append((at, value))
    return {name: Series.of(values) for name, values in pairs.items()}


def _numbers(row: Mapping[str, Any], skip: set[str]) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if name in skip or not name or _blank(value):
            continue
        try:
            yield name, number(value)
        except (TypeError, ValueError):
            continue  # a column of words, such as a tag, is no series


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def read_wandb(names: list[str], rows: list[list[str]], source: str) -> list[RawRun]:
    """Read a chart exported from Weights & Biases.

    For each run there are three columns, ``RUN - METRIC`` and the same with ``__MIN`` and
    ``__MAX``; run names may contain " - ", so the last one separates. The plain column is used;
    if the bounds differ from it somewhere, the chart was binned, which is noted.
    """
    counter = pick(names[:1], STEPS)
    if counter is None:
        raise CurveError(
            "the export's first column does not count steps",
            place=source,
            value=names[0],
            remedy="Set the chart's x axis to Step and export it again",
        )
    where = {name: i for i, name in enumerate(names)}
    runs: dict[str, dict[str, Series]] = defaultdict(dict)
    notes: dict[str, list[str]] = defaultdict(list)
    for name, i in where.items():
        if name == counter or name.endswith(_BINNED):
            continue
        run, found, metric = name.rpartition(" - ")
        if not found:
            run, metric = "", name
        runs[run][metric] = Series.of(_cells(rows, i, source, name))
        bounds = [where.get(name + suffix) for suffix in _BINNED]
        if any(b is not None and _differs(rows, i, b) for b in bounds):
            notes[run].append(
                f"{metric}: the chart was binned (its __MIN and __MAX differ from the value): "
                "export the full history for exact points"
            )
    if not runs:
        raise CurveError("the export holds no run", place=source)
    return [RawRun(run, source, series, tuple(notes[run])) for run, series in runs.items()]


def _cells(rows: list[list[str]], i: int, source: str, name: str) -> Iterator[tuple[float, float]]:
    for line, row in enumerate(rows, start=2):
        if i < len(row) and row[i].strip():
            try:
                yield number(row[0]), number(row[i])
            except ValueError:
                raise CurveError(
                    f"line {line} is not numbers", place=f"{source}: {name}", value=row[i]
                ) from None


def _differs(rows: list[list[str]], i: int, bound: int) -> bool:
    return any(row[i].strip() != row[bound].strip() for row in rows if max(i, bound) < len(row))
