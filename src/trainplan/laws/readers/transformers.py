"""``trainer_state.json`` of the Hugging Face Trainer (and of TRL's trainers).

``log_history`` is a list of flat rows; training rows hold ``loss`` (the mean since the row
before) and ``learning_rate``, evaluation rows ``eval_loss``, the last row a summary. NaN is
written bare, which strict JSON readers refuse.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trainplan.laws.readers.raw import CurveError, RawRun, text_of
from trainplan.laws.readers.tables import flat, split_rows

STATE = "trainer_state.json"


def read_json(path: Path, step: str | None = None) -> list[RawRun]:
    """Read a trainer's state, or a JSON list of rows."""
    try:
        content = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise CurveError(f"not JSON: {error}", place=str(path)) from None
    if isinstance(content, dict) and "log_history" in content:
        return _history(content["log_history"], path)
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        return split_rows([flat(row) for row in content], str(path), step)
    raise CurveError(
        "neither a trainer's state (an object with log_history) nor a list of rows",
        place=str(path),
        remedy=f"Keys there are: {', '.join(map(str, content))}"
        if isinstance(content, dict)
        else "",
    )


def _history(history: Any, path: Path) -> list[RawRun]:
    if not isinstance(history, list) or not all(isinstance(row, dict) for row in history):
        raise CurveError("log_history is not a list of rows", place=str(path))
    rows = [row for row in history if "train_runtime" not in row]
    if not rows:
        raise CurveError(
            "log_history is empty",
            place=str(path),
            remedy="The run logged nothing: set logging_steps below its length",
        )
    return split_rows(rows, str(path), "step")


def newest_state(directory: Path) -> Path | None:
    """The state of an output directory: its own, or that of its newest checkpoint."""
    if (directory / STATE).is_file():
        return directory / STATE
    found = [
        (int(match[1]), child / STATE)
        for child in directory.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", child.name)) and (child / STATE).is_file()
    ]
    return max(found)[1] if found else None
