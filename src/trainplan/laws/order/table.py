"""A table of every batch's gradient at every point of the reference run, and secants from it.

The table takes T N gradients once. After that an estimate computes no gradient at all: curvature is
read from it element by element, as the slope of the gradient between two neighbouring points.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainplan.errors import PlanError
from trainplan.files import write_atomically
from trainplan.laws.order.cost import readable
from trainplan.laws.order.curvature import BatchLoss, Expansion
from trainplan.laws.order.progress import progress_over
from trainplan.laws.order.projection import Projection, ProjectionWarning, projection_error
from trainplan.laws.order.recording import OrderRun

_NO_MOVE = 1e-12
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


def secant(
    now: Tensor, before: Tensor, theta: Tensor, theta_before: Tensor, h_max: float = float("inf")
) -> Tensor:
    """The slope of each element between two points, (now - before) / (theta - theta_before).

    0 where the point moved by 1e-12 at most, and cut to [-h_max, h_max]. With gradients it is the
    diagonal of the Hessian of a loss whose parameters do not interact, and a crude guess otherwise.

    Args:
        now: Values at ``theta``, ``[D]``.
        before: Values at ``theta_before``, ``[D]``.
        theta: ``[D]``.
        theta_before: ``[D]``.
        h_max: The largest slope believed.

    >>> at = lambda x: torch.tensor(x)
    >>> secant(at([4.0, 1.0]), at([2.0, 0.0]), at([1.0, 5.0]), at([0.5, 5.0])).tolist()
    [4.0, 0.0]
    """
    move = theta - theta_before
    still = move.abs() <= _NO_MOVE
    slope = torch.where(still, 0.0, (now - before) / torch.where(still, 1.0, move))
    return slope.clamp_(-h_max, h_max)


class GradientTable:
    """The gradients ``[T, N, D]`` of N batches at T points, on disk; or ``[T, N, k]`` projected.

    Args:
        folder: Where the table lies or will lie.
        run: The recorded run.
        loss: Of the batches.
        batches: N.
        projection: k, or None to store gradients whole.
        seed: Of the projection.
        h_max: See `secant`.

    Raises:
        PlanError: If the folder holds another table.
    """

    def __init__(
        self,
        folder: Path,
        run: OrderRun,
        loss: BatchLoss,
        batches: int,
        projection: int | None = None,
        seed: int = 0,
        h_max: float = float("inf"),
    ) -> None:
        self.folder, self.run, self.h_max = folder, run, h_max
        self._loss = loss
        size = run.layout.size
        dtype = run.parameters(0).dtype
        if dtype not in _NUMPY:
            raise PlanError("a table needs float32 or float64", place="curvature", value=str(dtype))
        self._projection = None
        if projection is not None:
            self._projection = Projection(size, projection, seed, dtype)
            _warn(size, projection)
        self.shape = (run.steps, batches, projection if projection is not None else size)
        self.settings = {"shape": list(self.shape), "dtype": str(dtype), "seed": seed}
        self._dtype = _NUMPY[dtype]
        self._data: Any = None

    @property
    def nbytes(self) -> int:
        """On disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self._dtype).itemsize

    @property
    def rows_done(self) -> int:
        """For how many points all gradients are there."""
        try:
            state = json.loads((self.folder / "table.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return 0
        if {key: state.get(key) for key in self.settings} != self.settings:
            remedy = "Name another table_folder, or delete it"
            raise PlanError(
                "holds another table", place="table_folder", value=str(self.folder), remedy=remedy
            )
        return int(state["rows"])

    def build(self, *, max_bytes: float | None = None, show: bool | None = None) -> None:
        """Compute what is missing; after an interruption the next call goes on.

        Args:
            max_bytes: The largest table allowed; by default what the disk has free.
            show: Whether to draw a progress bar; by default if somebody is watching.

        Raises:
            PlanError: Before anything is computed, if the table would be too large.
        """
        done = self.rows_done
        path = self.folder / "gradients.bin"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            free = shutil.disk_usage(self.folder).free if max_bytes is None else max_bytes
            if self.nbytes > free:
                raise PlanError(
                    f"the table would take {readable(self.nbytes)}, and {readable(free)} are "
                    + ("free" if max_bytes is None else "allowed"),
                    place="table_folder",
                    value=str(self.folder),
                    remedy="Use curvature='hvp', which needs no table, or train fewer parameters",
                )
            done = 0
        mode: Any = "r+" if path.exists() else "w+"
        self._data = np.memmap(path, self._dtype, mode, shape=self.shape)
        for t in progress_over(range(done, self.run.steps), "Gradient table", show):
            theta = self.run.parameters(t)
            for j in range(self.shape[1]):
                g = self._loss.gradient(theta, j).cpu()
                stored = g if self._projection is None else self._projection.project(g)
                self._data[t, j] = stored.numpy()
            self._data.flush()
            state = self.settings | {"rows": t + 1}
            write_atomically(self.folder / "table.json", json.dumps(state))

    def gradient(self, t: int, j: int) -> Tensor:
        """The gradient ``[D]`` of batch ``j`` at point ``t``, as well as it was kept."""
        if self._data is None:
            self.build()
        stored = torch.from_numpy(np.array(self._data[t, j]))
        return stored if self._projection is None else self._projection.reconstruct(stored)

    def expansion(self, t: int, j: int, d: Tensor, terms: int) -> Expansion:
        """Gradient and changes of batch ``j`` at point ``t``; secants are 0 where history lacks."""
        g = self.gradient(t, j)
        if terms == 0:
            return Expansion(g)
        if t == 0:
            zero = torch.zeros_like(g)
            return Expansion(g, zero, zero if terms == 2 else None)
        here, last = self.run.parameters(t), self.run.parameters(t - 1)
        before = self.gradient(t - 1, j)
        h = secant(g, before, here, last, self.h_max)
        if terms == 1:
            return Expansion(g, h * d)
        if t == 1:
            return Expansion(g, h * d, torch.zeros_like(g))
        oldest = self.run.parameters(t - 2)
        h_before = secant(before, self.gradient(t - 2, j), last, oldest, self.h_max)
        return Expansion(g, h * d, secant(h, h_before, here, last, self.h_max) * d * d)

    def damage(self, t: int = 0) -> dict[str, float]:
        """What the projection does to the gradients at one point, averaged over the batches.

        Returns:
            See `Projection.damage`; without a projection, no damage.
        """
        if self._projection is None:
            return {"relative error": 0.0, "signs kept": 1.0, "cosine": 1.0}
        theta = self.run.parameters(t)
        gradients = [self._loss.gradient(theta, j).cpu() for j in range(self.shape[1])]
        each = [self._projection.damage(g) for g in gradients]
        return {key: sum(one[key] for one in each) / len(each) for key in each[0]}


def _warn(size: int, k: int) -> None:
    warnings.warn(
        f"{size} values are stored as {k}: a gradient read back is off by about "
        f"{projection_error(size, k):.1f} times its own norm. Inner products survive, Adam's and "
        "the secant's division by elements does not; table.damage() measures it",
        ProjectionWarning,
        stacklevel=4,
    )
