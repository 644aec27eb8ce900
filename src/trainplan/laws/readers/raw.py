"""The form that every reader produces, and the error that every reader raises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainplan.errors import PlanError

Floats = NDArray[np.float64]

LARGEST_TEXT = 1 << 30
"""Bytes of a text log that are read at most."""


class CurveError(PlanError):
    """A log cannot be used as a loss curve; the message says what is missing and what is there."""


@dataclass(frozen=True, eq=False)
class Series:
    """One logged quantity, in the order in which it was written.

    Attributes:
        steps: Shape (n,); may go back where a run was resumed.
        values: Shape (n,); may hold NaN.
    """

    steps: Floats
    values: Floats

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> Series:
        """From (step, value) pairs."""
        table = np.array(list(pairs), dtype=np.float64).reshape(-1, 2)
        return cls(table[:, 0].copy(), table[:, 1].copy())


@dataclass(frozen=True, eq=False)
class RawRun:
    """Everything one run logged.

    Attributes:
        name: The run's name in its log; empty if the log holds one run without a name.
        source: The file or directory, for messages.
        series: By column name.
        notes: What the reader has to say about the file.
    """

    name: str
    source: str
    series: Mapping[str, Series]
    notes: tuple[str, ...] = field(default=())


def number(value: Any) -> float:
    """A logged value as a float: NaN if it is a word for it, or None.

    Raises:
        ValueError: If it is not a number.
    """
    if value is None or isinstance(value, bool):
        raise ValueError(value)
    return float(value)


def text_of(path: Path) -> str:
    """The text of a log file.

    Raises:
        CurveError: If it cannot be read, is not text, or is larger than 1 GB.
    """
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise CurveError("larger than 1 GB: not a log of scalars", place=str(path))
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CurveError(f"cannot be read: {error.strerror}", place=str(path)) from None
    except UnicodeDecodeError as error:
        raise CurveError(
            f"not text: {error.reason} at byte {error.start}",
            place=str(path),
            remedy="Give a CSV, JSON or JSONL file, a TensorBoard or MLflow directory",
        ) from None
