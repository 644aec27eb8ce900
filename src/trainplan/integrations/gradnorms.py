"""Record gradient norms while training, before clipping, for the refinement of the next run.

    recorder = GradNormRecorder(model).attach(optimizer)
    ...                                          # train as ever
    recorder.save("grad_norms.csv")              # then: trainplan refine grad_norms.csv

Refinement (Defazio et al., 2023, arXiv 2310.07831) needs the norm of the whole averaged gradient
of each update as it is before clipping: L1 for Adam, L2 for SGD. Both are recorded. An attached
recorder measures at the end of every backward pass, which is before anything can clip, and keeps
the last measurement when the optimizer steps.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan._extras import require
from trainplan.errors import PlanError
from trainplan.files import write_atomically
from trainplan.schedules.values import count

torch = require("torch", extra="torch")

COLUMNS = ("step", "grad_l1", "grad_l2")
"""The columns of a saved file; ``step`` is 1 for the first update."""
_FLUSH = 256


class GradNormRecorder:
    """Keeps the L1 and L2 norm of the gradient of each update, and the update's number.

    Two ways to use it. `attach` it, and it records by itself: under gradient accumulation the sum
    of the micro-batches, with a ``GradScaler`` the true size, and nothing for updates that are
    skipped. Or call `record` after the backward pass, after ``scaler.unscale_(optimizer)`` if there
    is a scaler, and before clipping.

    Norms stay on the device until 256 have come together, so recording does not wait for it.
    Gradients that are sharded over processes are refused: their norms would be those of one shard.

    Args:
        parameters: A module, or parameters: all that are trained, whatever group they are in.
        every: Record each so many-th update, beginning with the first.

    Attributes:
        count: Updates that were seen.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> optimizer = torch.optim.SGD([weight], lr=0.1)
    >>> recorder = GradNormRecorder([weight]).attach(optimizer)
    >>> (weight * torch.tensor([3.0, -4.0])).sum().backward()
    >>> _ = torch.nn.utils.clip_grad_norm_([weight], 1.0)
    >>> optimizer.step()
    >>> recorder.steps, recorder.l1, recorder.l2
    ([1], [7.0], [5.0])
    """

    def __init__(self, parameters: Any, *, every: int = 1) -> None:
        found = parameters.parameters() if hasattr(parameters, "parameters") else parameters
        self.parameters = [p for p in _tensors(found) if p.requires_grad]
        if not self.parameters:
            raise PlanError("there is nothing that is trained", place="parameters", value=0)
        self.every = count(every, "every")
        self.count = 0
        self._rows: list[tuple[int, float, float]] = []
        self._pending: list[tuple[int, Any]] = []
        self._latest: Any = None
        self._queued = False
        self._scaler: Any = None
        self._handles: list[Any] = []

    # Recording

    def attach(self, optimizer: Any, *, scaler: Any = None) -> GradNormRecorder:
        """Record every update of an optimizer from now on.

        Args:
            optimizer: Its steps are counted.
            scaler: The ``GradScaler`` whose scaled losses are backpropagated, if there is one.

        Returns:
            The recorder itself.
        """
        self.watch()
        self._scaler = scaler
        self._handles.append(optimizer.register_step_post_hook(self._after_step))
        return self

    def watch(self) -> None:
        """Measure at the end of each backward pass; `keep` then says that an update was made.

        For hosts that cannot hook the optimizer.
        """
        if self._handles:
            raise PlanError("the recorder is attached already", remedy="Call detach() first")
        hook = self._after_accumulation
        self._handles = [p.register_post_accumulate_grad_hook(hook) for p in self.parameters]

    def detach(self) -> None:
        """Stop recording; what was recorded stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._latest = None

    def record(self) -> None:
        """Measure the gradients as they are and count one update.

        Raises:
            PlanError: If the recorder is attached and would count the update twice.
        """
        if self._handles:
            raise PlanError(
                "an attached recorder records by itself", remedy="Leave one of the two out"
            )
        if self._wanted:
            self._latest = self._measure()
        self.keep()

    def keep(self, scale: float = 1.0) -> None:
        """Count one update, whose gradient was the one measured last.

        Args:
            scale: What the loss had been multiplied by.
        """
        self.count += 1
        if self._latest is not None:
            self._pending.append((self.count, self._latest / scale))
            self._latest = None
        if len(self._pending) >= _FLUSH:
            self._flush()

    @property
    def _wanted(self) -> bool:
        return self.count % self.every == 0

    def _after_accumulation(self, parameter: Any) -> None:
        if self._queued or not self._wanted:
            return
        self._queued = True
        engine = torch.autograd.Variable._execution_engine
        # Twice, because gradients that are averaged over processes are written by a callback that
        # may come after the first.
        engine.queue_callback(lambda: engine.queue_callback(self._at_the_end))

    def _at_the_end(self) -> None:
        self._queued = False
        self._latest = self._measure()

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        # A fused optimizer is also called for a step that overflowed, and skips it by itself.
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is not None and skipped.item():
            self._latest = None
            return
        scaled = self._scaler is not None and self._latest is not None
        self.keep(float(self._scaler.get_scale()) if scaled else 1.0)

    def _measure(self) -> Any:
        """L1 and L2 norm of all gradients; (2,) on their device; None without gradients."""
        gradients = [_dense(p.grad) for p in self.parameters if p.grad is not None]
        if not gradients:
            return None
        home = gradients[0].device
        l1 = [x.to(home, torch.float32) for x in torch._foreach_norm(gradients, 1)]
        l2 = [x.to(home, torch.float32) for x in torch._foreach_norm(gradients, 2)]
        return torch.stack([torch.stack(l1).sum(), torch.linalg.vector_norm(torch.stack(l2))])

    # What was recorded

    @property
    def steps(self) -> list[int]:
        """The updates that were recorded, from 1."""
        return [step for step, _, _ in self._flush()]

    @property
    def l1(self) -> list[float]:
        """Sum of absolute values of the gradient, for Adam."""
        return [l1 for _, l1, _ in self._flush()]

    @property
    def l2(self) -> list[float]:
        """Length of the gradient, for SGD."""
        return [l2 for _, _, l2 in self._flush()]

    def norms(self, optimizer: str = "adam") -> npt.NDArray[np.float64]:
        """What ``tp.schedules.refine(norms, peak, optimizer=optimizer)`` takes; (n,)."""
        return np.asarray(self.l2 if optimizer == "sgd" else self.l1, dtype=np.float64)

    def _flush(self) -> list[tuple[int, float, float]]:
        if self._pending:
            values = torch.stack([norms for _, norms in self._pending]).tolist()
            steps = [step for step, _ in self._pending]
            self._rows += [(s, l1, l2) for s, (l1, l2) in zip(steps, values, strict=True)]
            self._pending = []
        return self._rows

    def state_dict(self) -> dict[str, Any]:
        """All that was recorded, as plain lists."""
        return {"count": self.count, "rows": [list(row) for row in self._flush()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._pending, self._latest, self._queued = [], None, False
        self.count = int(state["count"])
        self._rows = [(int(s), float(l1), float(l2)) for s, l1, l2 in state["rows"]]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file that ``trainplan refine`` reads, with the columns `COLUMNS`."""
        lines = [",".join(COLUMNS), *(f"{s},{l1!r},{l2!r}" for s, l1, l2 in self._flush())]
        write_atomically(Path(path), "\n".join(lines) + "\n")

    def load(self, path: str | os.PathLike[str], done: int) -> None:
        """Go on from a file that `save` wrote, after ``done`` updates; later rows are dropped.

        Raises:
            PlanError: If the file is not one of `save`.
        """
        lines = Path(path).read_text(encoding="utf-8").split()
        if lines[:1] != [",".join(COLUMNS)]:
            raise PlanError("not a file of gradient norms", place=str(path), value=lines[:1])
        try:
            rows = [[float(cell) for cell in line.split(",")] for line in lines[1:]]
            state = {"count": done, "rows": [row for row in rows if row[0] <= done]}
            self.load_state_dict(state)
        except ValueError as error:
            raise PlanError(f"not a row of norms: {error}", place=str(path)) from None


def _tensors(given: Iterable[Any]) -> Iterable[Any]:
    """Parameters, also out of the groups that optimizers take."""
    for item in given:
        yield from item["params"] if isinstance(item, dict) else [item]


def _dense(gradient: Any) -> Any:
    if hasattr(gradient, "full_tensor"):
        raise PlanError(
            "a gradient that is sharded over processes",
            place="parameters",
            remedy="Record the norm that the sharding library reports, in a CSV with step,norm",
        )
    return gradient.coalesce().values() if gradient.is_sparse else gradient
