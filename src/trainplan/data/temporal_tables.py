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
    optimizer: torch.optim.Optimizer | None = None,
    *,
    mode: str = "zeros",
    table: str = "time_embeddings",
    prefix: int = 0,
    per_frame: int = 1,
    state: str = "keep",
) -> bool:
    """Give a model's temporal tables another number of frames, in place, unless they have it.

    The parameters stay the same objects, so that optimizers and plans go on with them. A model's
    ``config.num_frames`` follows. Call it between steps, and before a model is wrapped for several
    processes.

    Args:
        model: With a parameter of that name, (1, F, D) or (F, D); such as
            `trainplan.models.SpaceTimeTransformer` or Transformers' TimeSformer.
        frames: Wanted in the table; of tubelets, where a model counts these.
        optimizer: Whose state of the tables is resized.
        mode: See `expand_temporal_embedding`.
        table: Last part of the parameter's name.
        prefix: Rows before those of the frames.
        per_frame: Rows of a frame. ViViT's ``position_embeddings`` have 1 and its patches; give
            ``mode="interp"`` there, since ``zeros`` leaves new frames without places.
        state: ``keep`` the optimizer's state of the old rows and begin that of new ones with 0, or
            ``reset`` that of all rows. A step count for the whole table goes on when it is kept.

    Returns:
        Whether a table was changed.

    Raises:
        PlanError: If there is no such table.
    """
    if state not in ("keep", "reset"):
        remedy = nearest(state, ("keep", "reset"))
        raise PlanError("unknown", place="state", value=state, remedy=remedy)
    named = dict(model.named_parameters())
    tables = [value for name, value in named.items() if name.split(".")[-1] == table]
    if not tables:
        remedy = nearest(table, sorted({name.split(".")[-1] for name in named}))
        raise PlanError("no parameter has this name", place="table", value=table, remedy=remedy)
    for parameter in tables:
        if (parameter.shape[-2] - prefix) % per_frame:
            what = f"{parameter.shape[-2]} rows are not {prefix} and {per_frame} for each frame"
            raise PlanError(what, place="per_frame", value=per_frame)

    def resized(values: Tensor, mode: str) -> Tensor:
        rows = values[..., prefix:, :].reshape(*values.shape[:-2], -1, per_frame * values.shape[-1])
        wide = expand_temporal_embedding(rows, frames, mode)
        wide = wide.reshape(*values.shape[:-2], frames * per_frame, values.shape[-1])
        return torch.cat([values[..., :prefix, :], wide], dim=-2)

    wrong = [p for p in tables if p.shape[-2] != prefix + frames * per_frame]
    for parameter in wrong:
        old, parameter.data = parameter.shape, resized(parameter.data, mode)
        parameter.grad = None
        if optimizer is not None and state == "reset":
            optimizer.state.pop(parameter, None)
        elif optimizer is not None:
            kept = optimizer.state.get(parameter, {})
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.shape == old:
                    kept[name] = resized(value, "zeros")
    config: Any = getattr(model, "config", None)
    if hasattr(config, "num_frames"):
        config.num_frames = frames * getattr(config, "tubelet_size", (1,))[0]
    return bool(wrong)
