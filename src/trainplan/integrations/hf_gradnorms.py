"""Hugging Face Transformers: record gradient norms, before clipping, inside ``Trainer``.

    Trainer(..., callbacks=[GradNormCallback("grad_norms.csv")])

then ``trainplan refine grad_norms.csv``. ``Trainer``'s own ``grad_norm`` is the L2 norm, of the
rows that are logged only; Adam needs the L1 norm (Defazio et al., 2023, arXiv 2310.07831).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.integrations.gradnorms import GradNormRecorder

transformers = require("transformers", extra="hf")
_TrainerCallback = transformers.TrainerCallback


class GradNormCallback(_TrainerCallback):  # type: ignore[misc, valid-type]
    """Record the gradient norms of a ``Trainer`` into a CSV file.

    The file is written with each checkpoint and at the end. A run that is resumed goes on with
    the rows that belong to its checkpoint; one that starts anew writes the file anew.

    Args:
        path: The file.
        every: Record each so many-th update.

    Attributes:
        recorder: The `GradNormRecorder` at work, from the beginning of training on.

    >>> GradNormCallback("grad_norms.csv", every=10).path.name
    'grad_norms.csv'
    """

    def __init__(self, path: str | os.PathLike[str], *, every: int = 1) -> None:
        self.path = Path(path)
        self.every = every
        self.recorder: GradNormRecorder | None = None
        if not self.path.parent.is_dir():
            raise PlanError("no such folder", place="path", value=str(self.path.parent))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Watch the model's gradients, and find the rows of an earlier part of the run."""
        if self.recorder is not None:
            self.recorder.detach()  # the last train() was interrupted
        self.recorder = GradNormRecorder(kwargs["model"], every=self.every)
        done = int(state.global_step)
        if done and self.path.exists():
            self.recorder.load(self.path, done)
        else:
            self.recorder.count = done
        self.recorder.watch()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what the last backward pass measured."""
        if self.recorder is not None:
            scaler = getattr(kwargs.get("optimizer"), "scaler", None)
            self.recorder.keep(float(scaler.get_scale()) if scaler is not None else 1.0)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the file."""
        if self.recorder is not None and state.is_world_process_zero:
            self.recorder.save(self.path)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the file, and let go of the model."""
        self.on_save(args, state, control)
        if self.recorder is not None:
            self.recorder.detach()
