"""CoSO: learn each task in small subspaces that follow its gradients and avoid earlier tasks'.

Cheng, Wan, Wu, Hou and Zhang, 2025, "Continuous Subspace Optimization for Continual Learning",
arXiv 2505.11816. With G the gradient of a matrix, the protected side first, and M the directions
that earlier tasks need (`trainplan.optim.historical_subspace`)::

    G' = G - M (M^T G)
    P  = the leading left singular vectors of G'          every update_proj_gap updates
    S <- Frequent Directions of S and G'                  at the same updates
    R  = P^T G',  N = Adam's m / (sqrt(v) + eps) of R
    W <- W - lr * sqrt(1 - b2^t) / (1 - b1^t) * P N
    W <- W - lr * weight_decay * W

When a task ends, the leading directions of its sketch S join M; sketch, P, moments and the count t
of updates begin anew.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from trainplan.optim.coso_settings import check_group
from trainplan.optim.coso_update import coso_step, oriented
from trainplan.optim.grouped import GroupedOptimizer, check_gradient
from trainplan.optim.historical_subspace import HistoricalSubspace
from trainplan.optim.plain_adamw import PlainAdamW
from trainplan.optim.ranks import low_rank
from trainplan.optim.scratch import Scratch

_FULL = 0.9  # share of the directions from which on little can be learned


class CoSOAdamW(GroupedOptimizer):
    """Adam in a subspace of each matrix, out of the way of earlier tasks; AdamW for the rest.

    Call `end_task` between two tasks. Give it the matrices of a pre-trained model that are to
    adapt (the authors: the output projections of attention), and heads, biases and norms in a
    group with ``rank=None``; `trainplan.optim.split_params` makes the two groups. Every task needs
    a head of its own, or rows of its own in one head.

    Moments, projections and sketches are float32 at least. All are in the checkpoint, so a run
    goes on to the bit within a task and across tasks. Sharded parameters (FSDP) need whole
    matrices, and were not tried. ``torch.compile`` leaves the update as it is.

    Args:
        params: Parameters or groups. A group's ``rank=None`` means plain AdamW, which also
            begins anew with each task.
        lr: Learning rate.
        rank: Dimension of the subspace; a float is a share of a matrix's shorter side.
        sketch_rank: Directions in the sketch, above the rank; at most the shorter side less 1.
        update_proj_gap: After how many updates of a task the subspace is found again.
        threshold: Share of the energy of a task's gradients, below which directions are kept for
            good, in [0, 1]. 0 keeps none, which leaves out the protection.
        side: Of torch's weight (out, in). ``"output"`` (the published code) keeps new tasks from
            writing into output directions that old ones used; ``"input"`` keeps them from reading
            input directions that old ones used, so that old outputs stay as far as the kept
            directions hold the old inputs. Transformers' ``Conv1D`` stores (in, out).
        betas: Of Adam's moments.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled. Above 0 it moves what is protected.
        correct_bias: Whether Adam's corrections of the first updates are made.
        decay: The sketch is multiplied by it before each gradient; the authors' runs have 1.
        sketch_gap: After how many updates a gradient joins the sketch; ``None`` (the published
            code) for when the subspace is found again, 1 for the paper's text.
        align: What becomes of moments when the subspace changes, whose singular vectors have no
            sign of their own: ``"none"`` (the published code) leaves them, ``"signs"`` turns each
            new vector towards its predecessor, ``"transport"`` takes the first moment along.
        svd: ``"lowrank"`` finds the leading vectors by random projection, many times faster for
            large matrices, with a fixed seed.
        maximize: Climb instead.
        foreach: ``False`` for the plain sequence of formulas.

    Raises:
        PlanError: For settings that cannot be meant; for sparse or complex gradients; and for
            infinite or NaN ones at an update that finds a subspace.

    >>> model = torch.nn.Linear(16, 16)
    >>> optimizer = CoSOAdamW(model.parameters(), lr=0.01, rank=2, sketch_rank=4)
    >>> for x in torch.eye(16)[:2]:
    ...     model(x).square().sum().backward()
    ...     optimizer.step()
    >>> optimizer.end_task()
    >>> optimizer.task, optimizer.used(model.named_parameters())
    (1, {'weight': 0.0625})
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 3e-4,
        *,
        rank: int | float | None = 50,
        sketch_rank: int | float = 120,
        update_proj_gap: int = 1,
        threshold: float = 0.98,
        side: Literal["output", "input"] = "output",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        decay: float = 1.0,
        sketch_gap: int | None = None,
        align: Literal["none", "signs", "transport"] = "none",
        svd: Literal["full", "lowrank"] = "full",
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        defaults = {key: value for key, value in locals().items() if key not in _NOT_DEFAULTS}
        super().__init__(params, {**defaults, "task": 0})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take further parameters, with settings of their own, in the task of the others."""
        task = self.task if self.param_groups else 0
        super().add_param_group({"task": task, **param_group})

    @property
    def task(self) -> int:
        """How many tasks have ended."""
        return int(self.param_groups[0]["task"])

    def historical(self, p: Tensor) -> HistoricalSubspace:
        """The directions of a matrix that ended tasks have taken; a copy."""
        basis = self.state.get(p, {}).get("historical")
        return HistoricalSubspace(None if basis is None else basis.clone())

    def used(self, named: Iterable[tuple[str, Tensor]]) -> dict[str, float]:
        """The share of the protected side's directions that are taken, of each matrix by name."""
        places = {p: group for group in self.param_groups for p in group["params"]}
        return {
            name: self.historical(p).dimension / len(oriented(p, places[p]))
            for name, p in named
            if p in places and low_rank(p, places[p])
        }

    @torch.no_grad()
    def end_task(self) -> None:
        """Keep the directions that the task has needed, and begin the next with fresh moments."""
        most = 0.0
        decayed = False
        for group in self.param_groups:
            group["task"] += 1
            for p in group["params"]:
                state = self.state.pop(p, {})
                if not low_rank(p, group):
                    continue
                past = HistoricalSubspace(state.get("historical"))
                if "sketch" in state:
                    past.extend(state["sketch"], state["sketch_values"], group["threshold"])
                if past.basis is not None:
                    self.state[p] = {"step": 0, "historical": past.basis}
                    most = max(most, past.dimension / len(oriented(p, group)))
                    decayed |= float(group["weight_decay"]) > 0
        if most > _FULL:
            text = f"ended tasks have taken {most:.0%} of a matrix's directions: little can be "
            warnings.warn(text + "learned in the rest. Lower the threshold", stacklevel=2)
        if decayed:
            text = "weight decay moves what ended tasks need: set weight_decay=0 for the matrices"
            warnings.warn(text, stacklevel=2)

    _check_group = staticmethod(check_group)

    def _update(self) -> None:
        scratch = Scratch()
        for group in self.param_groups:
            plain = PlainAdamW(group)
            for p in group["params"]:
                if p.grad is None:
                    continue
                check_gradient(p.grad, "CoSO")
                if low_rank(p, group):
                    coso_step(p, p.grad, self.state[p], group, scratch)
                else:
                    plain.add(p, self.state[p])
            plain.step()


_NOT_DEFAULTS = ("self", "params", "__class__")
