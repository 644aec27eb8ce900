"""Resize a model's table of temporal positions, and the optimizer's state of it, while training.

Bain et al., 2021, "Frozen in Time", arXiv 2104.00650, enlarge the table between stages with few and
with many frames; there the optimizer began anew, here it may go on.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainplan.errors import PlanError, nearest
from trainplan.schedules.values import count

MODES: Final = ("zeros", "interp", "bilinear")
STATES: Final = ("keep", "reset")


def expand_temporal_embedding(table: Tensor, frames: int, mode: str = "zeros") -> Tensor:
    """(..., frames, D) the table for another number of frames; for fewer, its first rows.

    Args:
        table: (..., F, D) a row for each frame.
        frames: Rows wanted.
        mode: Rows that are added are 0 (``zeros``), or all rows are taken from the nearest old one
            (``interp``), or between the two nearest ones (``bilinear``).

    >>> expand_temporal_embedding(torch.tensor([[5.0], [6.0]]), 4).tolist()
    [[5.0], [6.0], [0.0], [0.0]]
    >>> expand_temporal_embedding(torch.tensor([[5.0], [6.0]]), 4, "bilinear").tolist()
    [[5.0], [5.25], [5.75], [6.0]]
    """
    if mode not in MODES:
        raise PlanError("unknown", place="mode", value=mode, remedy=nearest(mode, MODES))
    if table.ndim < 2:
        remedy = "Give (..., F, D)"
        raise PlanError("not a table", place="table", value=tuple(table.shape), remedy=remedy)
    old, new = table.shape[-2], count(frames, "frames")
    if new <= old:
        return table[..., :new, :].clone()
    if mode == "zeros":
        return functional.pad(table, (0, 0, 0, new - old))
    columns = table.reshape(-1, old, table.shape[-1]).transpose(1, 2)
    if mode == "interp":
        wide = functional.interpolate(columns, size=new, mode="nearest")
    else:
        wide = functional.interpolate(columns, size=new, mode="linear", align_corners=False)
    return wide.transpose(1, 2).reshape(*table.shape[:-2], new, table.shape[-1])


@torch.no_grad()
def resize_frames(
    model: nn.Module,
    frames: int,
    optimizer: torch.optim.Optimizer | None,
    *,
    mode: str = "zeros",
    table: str = "time_embeddings",
    prefix: int = 0,
    per_frame: int = 1,
    state: str = "keep",
) -> bool:
    """Give a model's temporal tables another number of frames, unless they have it.

    Tables become new parameters, which take the places of the old ones in the model and in the
    optimizer. (To change the old ones in place would sum their gradients over frames, without an
    error, while any loss of an earlier step is alive.) A model's ``config.num_frames`` follows.
    Call it between steps, and before a model is wrapped for several processes.

    Args:
        model: With a parameter of that name, (1, F, D) or (F, D); such as
            `trainplan.models.SpaceTimeTransformer` or Transformers' TimeSformer.
        frames: Wanted in the table; of tubelets, where a model counts these.
        optimizer: That trains the tables; None if there is none yet.
        mode: See `expand_temporal_embedding`.
        table: Last part of the parameter's name.
        prefix: Rows before those of the frames.
        per_frame: Rows of a frame. ViViT's ``position_embeddings`` have a prefix of 1, and its
            patches; give ``mode="interp"`` there, since ``zeros`` leaves new frames without places.
        state: ``keep`` the optimizer's state of the old rows and begin that of new ones with 0, or
            ``reset`` that of all rows. A step count for the whole table goes on when it is kept.

    Returns:
        Whether a table was changed.

    Raises:
        PlanError: If there is no such table, or it is not the optimizer's.
    """
    if state not in STATES:
        raise PlanError("unknown", place="state", value=state, remedy=nearest(state, STATES))
    owners = [module for module in model.modules() if table in module._parameters]
    if not owners:
        names = {name.split(".")[-1] for name, _ in model.named_parameters()}
        remedy = nearest(table, sorted(names))
        raise PlanError("no parameter has this name", place="table", value=table, remedy=remedy)

    def resized(values: Tensor, mode: str) -> Tensor:
        *outer, rows, size = values.shape
        if (rows - prefix) % per_frame:
            what = f"{rows} rows are not {prefix} and {per_frame} for each frame"
            raise PlanError(what, place="per_frame", value=per_frame)
        by_frame = values[..., prefix:, :].reshape(*outer, -1, per_frame * size)
        wide = expand_temporal_embedding(by_frame, frames, mode).reshape(*outer, -1, size)
        return torch.cat([values[..., :prefix, :], wide], dim=-2)

    changed = False
    for owner in owners:
        old = getattr(owner, table)
        wide = resized(old, mode)
        if wide.shape == old.shape:
            continue
        new = nn.Parameter(wide, requires_grad=old.requires_grad)
        if optimizer is not None:
            _replace(optimizer, old, new)
            kept = optimizer.state.pop(old, {})
            if state == "keep" and kept:
                optimizer.state[new] = {
                    name: resized(value, "zeros") if _is_like(value, old) else value
                    for name, value in kept.items()
                }
        setattr(owner, table, new)
        changed = True
    config: Any = getattr(model, "config", None)
    if hasattr(config, "num_frames"):
        config.num_frames = frames * getattr(config, "tubelet_size", (1,))[0]
    return changed


def _is_like(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _replace(optimizer: torch.optim.Optimizer, old: Tensor, new: Tensor) -> None:
    """Put a parameter in the place of another, in whatever group it is."""
    for group in optimizer.param_groups:
        for k, parameter in enumerate(group["params"]):
            if parameter is old:
                group["params"][k] = new
                return
    if old.requires_grad:
        what = "it does not train the table"
        remedy = "Give the optimizer of this model"
        raise PlanError(what, place="optimizer", value=type(optimizer).__name__, remedy=remedy)
