"""Save and restore all state of a task in training.

A checkpoint is one file of tensors, plain numbers and text. It is read with ``weights_only``, so
a file from a stranger cannot run code.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainplan.lab.store import RunDirectoryError, write_atomically
from trainplan.lab.workload import Task


def save(path: Path, task: Task, extra: Mapping[str, Any]) -> None:
    """Write the task's state and ``extra`` (plain data), all at once or not at all."""
    state: dict[str, Any] = {
        "model": task.model.state_dict(),
        "optimizer": task.optimizer.state_dict(),
        "extra": dict(extra),
    }
    if hasattr(task, "state_dict"):
        state["task"] = task.state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path, task: Task) -> dict[str, Any]:
    """Put a saved state into a newly built task; return the ``extra`` it was saved with.

    Raises:
        RunDirectoryError: If the file is damaged or is of another task.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        task.model.load_state_dict(state["model"])
        task.optimizer.load_state_dict(state["optimizer"])
        if hasattr(task, "load_state_dict"):
            task.load_state_dict(state["task"])
        return dict(state["extra"])
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunDirectoryError(
            f"{path} cannot be restored ({reason}): delete {path.parent} to train that part again"
        ) from error


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 of all parameters and buffers, by name: equal digests mean equal bits."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
