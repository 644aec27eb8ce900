"""APOLLO: each channel's learning rate from a small random projection of its gradient.

Zhu, Zhang, Cong et al., 2024, "APOLLO: SGD-like Memory, AdamW-level Performance", arXiv
2412.05270. The raw gradient is the direction; how far each channel goes along it is what Adam
would have done to a random projection of the gradient, which needs a quarter of Adam's memory at a
quarter of the width, and almost none with a rank of one (APOLLO-Mini).

With G the gradient of a matrix, channels first (see `trainplan.optim.projection`), P a random
matrix redrawn every ``update_proj_gap`` updates, and M, V Adam's moments of R = G P::

    N = M / (sqrt(V) + eps)
    s = |N_j| / |R_j| for each channel j, or |N| / |R| for the whole tensor
    D = s * G
    D <- D / max(1, |D| / (norm_growth * |D| of the update before))
    W <- W - lr * sqrt(1 - b2^t) / (1 - b1^t) * sqrt(scale) * D
    W <- W - lr * weight_decay * W
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from trainplan.optim.apollo_settings import check_group
from trainplan.optim.apollo_update import apollo_step
from trainplan.optim.grouped import GroupedOptimizer, check_gradient
from trainplan.optim.plain_adamw import PlainAdamW
from trainplan.optim.projection import (
    channels_first,
    next_seed,
    projection_for,
    singular_projection,
)
from trainplan.optim.ranks import low_rank, rank_for
from trainplan.optim.scratch import Scratch

_SEEDS_APART = 0x9E3779B1  # the CPU's generator reads the lowest 32 bits alone


class APOLLO(GroupedOptimizer):
    """Train matrices with projected scales, and everything else with AdamW.

    Matrices and convolution kernels of a group with a ``rank`` are projected, biases and norms are
    not. Leave embeddings and the output layer to AdamW: `split_params` does. It wants a rate
    several times AdamW's; 0.01 is the authors'. Clipping gradients is not needed.

    Adam's moments are kept in float32 at least. A checkpoint holds the seeds of projections, not
    the projections. They are drawn on the parameter's device: a run that goes on with another kind
    of device has other projections until the next refresh. Sharded parameters (FSDP) need whole
    channels, and were not tried. ``torch.compile`` leaves the update as it is.

    Args:
        params: Parameters or groups. A group's ``rank=None`` means plain AdamW.
        lr: Learning rate.
        rank: Dimension of the projection; a float is a share of a matrix's shorter side.
        scale: The update is multiplied by its square root. A matrix whose shorter side is D gets
            the size of Adam's updates with about D / rank; the authors take 1 for this rank when
            they train from scratch, and width / rank to fine-tune.
        scale_type: One scale per ``"channel"``, or per ``"tensor"``.
        update_proj_gap: After how many updates of a parameter its projection is redrawn.
        betas: Of Adam's moments.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled.
        correct_bias: Whether Adam's corrections of the first updates are made.
        norm_growth: By which factor the norm of a tensor's update may grow; ``None`` for any.
        scale_front: Whether ``scale`` comes before the limit of growth, which then starts from a
            larger norm. It only matters for a scale that changes.
        proj: ``"random"``, or ``"svd"`` for the gradient's own singular vectors, which are kept.
        seed: Of the projections; the authors' for 0.
        mode: ``"authors"`` lets a gradient of zero count as a norm to grow from, which freezes the
            tensor for thousands of updates; and it keeps moments in the gradient's type.
        keep_projections: Whether a projection stays in memory until it is redrawn. ``False`` saves
            (shorter side) x rank numbers per matrix, and costs about a tenth of the time.
        maximize: Climb instead.
        foreach: ``False`` for the plain sequence of formulas, which is slower and needs memory.

    Raises:
        PlanError: For settings that cannot be meant, and for sparse or complex gradients.

    >>> model = torch.nn.Linear(64, 256)
    >>> optimizer = APOLLO(model.parameters(), lr=0.01, rank=16)
    >>> model(torch.ones(1, 64)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.state[model.weight]["exp_avg"].shape
    torch.Size([256, 16])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.01,
        *,
        rank: int | float | None = 0.25,
        scale: float = 1.0,
        scale_type: Literal["channel", "tensor"] = "channel",
        update_proj_gap: int = 200,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        norm_growth: float | None = 1.01,
        scale_front: bool = False,
        proj: Literal["random", "svd"] = "random",
        seed: int = 0,
        mode: Literal["default", "authors"] = "default",
        keep_projections: bool = True,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        defaults = {key: value for key, value in locals().items() if key not in _NOT_DEFAULTS}
        self._drawn: dict[Tensor, tuple[int, Tensor]] = {}
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copies and pickles, and loading, begin without projections, which are redrawn."""
        super().__setstate__(state)
        self._drawn = {}

    _check_group = staticmethod(check_group)

    def _update(self) -> None:
        index = 0
        scratch = Scratch()
        for group in self.param_groups:
            plain = PlainAdamW(group)
            for p in group["params"]:
                index += 1
                if p.grad is None:
                    continue
                check_gradient(p.grad, "APOLLO", f"gradient of parameter {index}")
                if low_rank(p, group):
                    state = self._projected_state(p, group, index)
                    projection = self._projection(p, p.grad, state, group)
                    apollo_step(p, p.grad, projection, state, group, scratch)
                    state["step"] += 1
                else:
                    plain.add(p, self.state[p])
            plain.step()

    def _projected_state(self, p: Tensor, group: dict[str, Any], index: int) -> dict[str, Any]:
        """The state of a matrix; ``step`` counts completed updates while one is made."""
        state: dict[str, Any] = self.state[p]
        if not state:
            wide = torch.promote_types(p.dtype, torch.float32)
            kind = p.dtype if group["mode"] == "authors" else wide
            shape = (channels_first(p).shape[0], rank_for(group["rank"], p))
            state["step"] = 0
            state["seed"] = (group["seed"] * _SEEDS_APART + index) % 2**63
            state["exp_avg"] = torch.zeros(shape, dtype=kind, device=p.device)
            state["exp_avg_sq"] = torch.zeros(shape, dtype=kind, device=p.device)
            state["norm"] = torch.zeros((), dtype=wide, device=p.device)
        elif state["step"] % group["update_proj_gap"] == 0:
            state["seed"] = next_seed(state["seed"])
        return state

    def _projection(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> Tensor:
        """The current projection (shorter side, rank), in the gradient's type."""
        rank = state["exp_avg"].shape[1]
        if group["proj"] == "svd":
            if state["step"] % group["update_proj_gap"] == 0:
                state["projection"] = singular_projection(channels_first(grad), rank)
            stored: Tensor = state["projection"]
            return stored.to(grad.dtype)
        seed, kept = self._drawn.get(p, (-1, grad))
        if seed == state["seed"] and kept.device == grad.device and kept.dtype == grad.dtype:
            return kept
        rows = p.shape[0]
        columns = p.numel() // rows
        drawn = projection_for(state["seed"], rows, columns, rank, grad.device).to(grad.dtype)
        if group["keep_projections"]:
            self._drawn[p] = (state["seed"], drawn)
        return drawn


_NOT_DEFAULTS = ("self", "params", "__class__")


class APOLLOMini(APOLLO):
    """APOLLO with one number per tensor from a projection to one dimension.

    Its state is a few thousandths of Adam's. ``scale`` makes up for the dimensions lost: the
    authors' 128 is for widths of some thousands, D / rank suits a shorter side D. Its scales are
    noisy estimates: compare several seeds. All other arguments are those of `APOLLO`.

    >>> model = torch.nn.Linear(64, 256)
    >>> optimizer = APOLLOMini(model.parameters(), lr=0.01, scale=64)
    >>> model(torch.ones(1, 64)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.state[model.weight]["exp_avg"].shape
    torch.Size([256, 1])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.01,
        *,
        rank: int | float | None = 1,
        scale: float = 128.0,
        scale_type: Literal["channel", "tensor"] = "tensor",
        **options: Any,
    ) -> None:
        super().__init__(params, lr, rank=rank, scale=scale, scale_type=scale_type, **options)
