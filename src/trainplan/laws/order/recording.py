"""Keep the reference run: weights, the optimizer's state and its settings after every step.

One file per step, written whole or not at all, so that a run that was stopped can be gone on with.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainplan.errors import PlanError
from trainplan.files import write_atomically
from trainplan.laws.order.cost import readable
from trainplan.laws.order.layout import Layout, bare, fingerprint, untrained

_FORMAT = 1
Folder = str | os.PathLike[str]


def save(path: Path, content: Any) -> None:
    """``torch.save`` such that a reader sees the old file or the new one, never half."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> Any:
    """Tensors, numbers, text, lists and dicts; nothing that runs code."""
    return torch.load(path, map_location="cpu", weights_only=True)


class OrderRecorder:
    """Records every step of an optimizer from the moment it is made until `close`.

    It listens to ``optimizer.step()``: there is nothing to call in the loop. Everything between two
    steps is one batch, gradient accumulation included. Change the learning rate after
    ``optimizer.step()``, as schedulers do, not between ``step`` and the hook.

    Args:
        folder: Where the files go; made if missing.
        model: The model, in the state from which training starts.
        optimizer: Its optimizer, fresh or with state.
        order: ``order[t]`` is the number of the batch that step ``t`` uses; by default ``t``. If
            given, the first step checks that the disk has room for all of them.
        keep_moments: Whether the optimizer's state is kept of every step, not only of the first and
            the newest. Needed for ``moments="frozen"``, and otherwise makes estimates start where
            the new order departs from the old; it takes two more values per parameter for Adam.
        resume: Go on after the newest whole step: its weights and state are put into ``model`` and
            ``optimizer``, and `t` says which step comes next.

    Attributes:
        t: The number of steps recorded.

    Raises:
        PlanError: If the folder holds another run, or nothing to resume from; later, out of
            ``optimizer.step()``, if a buffer of the model changes or the disk is too small.

    Example:
        >>> import tempfile, torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with OrderRecorder(folder, model, optimizer) as recorder:
        ...         for x in torch.ones(3, 4, 2):
        ...             optimizer.zero_grad()
        ...             model(x).square().mean().backward()
        ...             optimizer.step()
        ...     OrderRun(folder).steps
        3
    """

    def __init__(
        self,
        folder: Folder,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        order: Sequence[int] | None = None,
        keep_moments: bool = True,
        resume: bool = False,
    ) -> None:
        self.folder = Path(folder)
        optimizer = bare(optimizer)
        self.layout = Layout.of(model, optimizer)
        self.keep_moments = keep_moments
        self.order = None if order is None else [int(j) for j in order]
        self._model, self._optimizer = model, optimizer
        self._buffers = {n: b.detach().clone() for n, b in model.named_buffers()}
        self.t = self._resume() if resume else self._begin()
        self._hook = optimizer.register_step_post_hook(self._after_step)

    def __enter__(self) -> OrderRecorder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._hook.remove()

    def _begin(self) -> int:
        if (self.folder / "run.json").exists():
            remedy = "Pass resume=True, or name another folder"
            raise PlanError(
                "holds a recorded run", place="folder", value=str(self.folder), remedy=remedy
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(0, {})
        manifest = self._manifest() | {"order": self.order, "keep_moments": self.keep_moments}
        write_atomically(self.folder / "run.json", json.dumps(manifest))
        return 0

    def _manifest(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "names": list(self.layout.names),
            "shapes": [list(shape) for shape in self.layout.shapes],
            "untrained": fingerprint(untrained(self._model, self.layout)),
        }

    def _resume(self) -> int:
        run = OrderRun(self.folder)
        run.check_model(self._model, self.layout)
        t = max((t for t in range(run.steps + 1) if run.has_moments(t)), default=0)
        with torch.no_grad():
            for name, value in self.layout.views(run.parameters(t)).items():
                self._model.get_parameter(name).copy_(value)
        self._optimizer.load_state_dict(
            {
                "state": run.moments(t),
                "param_groups": self._optimizer.state_dict()["param_groups"],
            }
        )
        self.order, self.keep_moments = run.given_order, run.keep_moments
        return t

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        for name, buffer in self._model.named_buffers():
            if not torch.equal(buffer, self._buffers[name]):
                raise PlanError(
                    "a buffer changes during training, and orders are estimated for weights only",
                    place="model",
                    value=name,
                    remedy="Freeze the batch norm (.eval()), or use layer norm",
                )
        t = self.t
        if self.order is not None and t >= len(self.order):
            remedy = "Close the recorder before training goes on"
            raise PlanError(f"the order has {len(self.order)} steps", place="order", remedy=remedy)
        groups = optimizer.param_groups
        options = [{k: _plain(v) for k, v in g.items() if k != "params"} for g in groups]
        self._write(t + 1, {"options": options})
        self.t = t + 1
        if t == 0:
            self._check_room()
        if not self.keep_moments and t > 0:
            _moments_path(self.folder, t).unlink(missing_ok=True)

    def _check_room(self) -> None:
        left = 0 if self.order is None else len(self.order) - 1
        step, moments = (
            path(self.folder, 1).stat().st_size for path in (_step_path, _moments_path)
        )
        needed = left * (step + moments * self.keep_moments)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise PlanError(
                f"the run would take {readable(needed)} more, and {readable(free)} are free",
                place="folder",
                value=str(self.folder),
                remedy="Record with keep_moments=False, or train fewer parameters or steps",
            )

    def _write(self, t: int, more: Mapping[str, Any]) -> None:
        values = {
            name: self._model.get_parameter(name).detach().cpu() for name in self.layout.names
        }
        state = self._optimizer.state_dict()["state"]
        save(_moments_path(self.folder, t), {"state": state})
        # The weights come last: a step counts as recorded once they are there.
        save(_step_path(self.folder, t), {"parameters": values, **more})


class OrderRun:
    """A recorded run: weights, state and settings, read when asked for.

    Args:
        folder: The one that the recorder wrote.
        cache: How many bytes of weights and state may stay in memory.

    Raises:
        PlanError: If the folder holds no recorded run.
    """

    def __init__(self, folder: Folder, *, cache: int = 2**30) -> None:
        self.folder = Path(folder)
        try:
            manifest = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise PlanError(
                "holds no recorded run",
                place="folder",
                value=str(self.folder),
                remedy="Train under an OrderRecorder first",
            ) from None
        if manifest.get("format") != _FORMAT:
            raise PlanError("unknown format", place="run.json", value=manifest.get("format"))
        shapes = tuple(tuple(shape) for shape in manifest["shapes"])
        self.layout = Layout(tuple(manifest["names"]), shapes)
        self.given_order: list[int] | None = manifest["order"]
        self.keep_moments: bool = manifest["keep_moments"]
        self._untrained: str = manifest["untrained"]
        self._left = cache
        self._cache: dict[tuple[str, int], Any] = {}
        steps = 0
        while _step_path(self.folder, steps + 1).exists():
            steps += 1
        self.steps = steps

    @property
    def order(self) -> list[int]:
        """The batch of each step."""
        return list(range(self.steps)) if self.given_order is None else self.given_order

    def parameters(self, t: int) -> Tensor:
        """The weights ``[D]`` before step ``t``, on the CPU; do not change them."""
        if ("parameters", t) in self._cache:
            return self._cache["parameters", t]  # type: ignore[no-any-return]
        flat = self.layout.flatten(load(_step_path(self.folder, t))["parameters"])
        self._keep(("parameters", t), flat, flat.nbytes)
        return flat

    def options(self, t: int) -> list[dict[str, Any]]:
        """The settings of every group in step ``t``, such as its rate."""
        if ("options", t) in self._cache:
            return self._cache["options", t]  # type: ignore[no-any-return]
        found = load(_step_path(self.folder, t + 1))["options"]
        self._keep(("options", t), found, 1000)
        return found  # type: ignore[no-any-return]

    def has_moments(self, t: int) -> bool:
        """Whether the optimizer's state before step ``t`` was kept."""
        return _moments_path(self.folder, t).exists()

    def moments(self, t: int) -> dict[int, dict[str, Any]]:
        """The optimizer's state before step ``t``, by the number of the parameter.

        Raises:
            PlanError: If it was not kept.
        """
        if ("moments", t) in self._cache:
            return self._cache["moments", t]  # type: ignore[no-any-return]
        if not self.has_moments(t):
            raise PlanError(
                "the optimizer's state of this step was not kept",
                place="step",
                value=t,
                remedy="Record with keep_moments=True",
            )
        state = load(_moments_path(self.folder, t))["state"]
        tensors = [v for s in state.values() for v in s.values() if isinstance(v, Tensor)]
        self._keep(("moments", t), state, sum(v.nbytes for v in tensors))
        return state  # type: ignore[no-any-return]

    def check_model(self, model: nn.Module, layout: Layout) -> None:
        """Refuse a model that is not the recorded one.

        Raises:
            PlanError: If trained parameters, frozen ones or buffers differ.
        """
        if layout != self.layout:
            other = sorted(set(layout.names) ^ set(self.layout.names))
            remedy = "Build model and optimizer as in the recorded run"
            raise PlanError(
                "trains other parameters than the recorded run",
                place="model",
                value=other or "other shapes or another order",
                remedy=remedy,
            )
        if fingerprint(untrained(model, layout)) != self._untrained:
            raise PlanError(
                "its frozen parameters or buffers differ from the recorded run's",
                place="model",
                remedy="Load the same pretrained weights as before",
            )

    def _keep(self, key: tuple[str, int], value: Any, size: int) -> None:
        if size <= self._left:
            self._left -= size
            self._cache[key] = value


def _step_path(folder: Path, t: int) -> Path:
    return folder / f"step-{t:06d}.pt"


def _moments_path(folder: Path, t: int) -> Path:
    return folder / f"moments-{t:06d}.pt"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
