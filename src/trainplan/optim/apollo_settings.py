"""What APOLLO may be told, and which parameters it is for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from trainplan.errors import PlanError, nearest
from trainplan.optim.grouped import check_betas, check_choices, check_not_negative
from trainplan.optim.ranks import check_rank
from trainplan.schedules.values import count, finite

_CHOICES = {
    "scale_type": ("channel", "tensor"),
    "proj": ("random", "svd"),
    "mode": ("default", "authors"),
}
_HEADS = ("lm_head", "embed_out", "head", "output", "classifier", "score")


def split_params(
    model: nn.Module, targets: str | Iterable[str] | None = None
) -> list[dict[str, Any]]:
    """Two groups: the matrices to project, and everything else, which is left to AdamW.

    Without targets, the first group are all weights of linear and convolution layers (any
    parameter of two or more dimensions) but embeddings, what is tied to one, and the output layer,
    known by its name or by ``get_output_embeddings``. Frozen parameters are in neither.

    Args:
        model: The model.
        targets: Parts of the names of the modules meant, such as ``["attn", "mlp"]``.

    Raises:
        PlanError: If there is nothing to project.

    >>> model = nn.ModuleDict({"mlp": nn.Linear(4, 8), "head": nn.Linear(8, 2)})
    >>> projected, others = split_params(model)
    >>> [tuple(p.shape) for p in projected["params"]], len(others["params"]), others["rank"]
    ([(8, 4)], 3, None)
    """
    words = (targets,) if isinstance(targets, str) else None if targets is None else tuple(targets)
    tables = _tables(model) if words is None else set()
    projected: list[Tensor] = []
    others: list[Tensor] = []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        module = name.rpartition(".")[0]
        if words is None:
            meant = id(p) not in tables and module.rpartition(".")[2] not in _HEADS
        else:
            meant = any(word in module for word in words)
        (projected if meant and p.ndim >= 2 else others).append(p)
    if not projected:
        names = {part for name, _ in model.named_modules() for part in name.split(".") if part}
        raise PlanError(
            "no matrix of the model is meant",
            place="targets",
            value=targets,
            remedy=nearest((words or ("",))[0], names),
        )
    groups: list[dict[str, Any]] = [{"params": projected}]
    return [*groups, {"params": others, "rank": None}] if others else groups


def _tables(model: nn.Module) -> set[int]:
    """The parameters of embeddings and of what Transformers calls the output embedding."""
    modules = [m for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
    found = {id(p) for module in modules for p in module.parameters()}
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if isinstance(output, nn.Module):
        found |= {id(p) for p in output.parameters()}
    return found


def check_group(group: Mapping[str, Any], place: str) -> None:
    """Refuse what cannot be meant.

    Raises:
        PlanError: Naming the setting, its value and what it may be.
    """
    check_choices(group, _CHOICES, place)
    if group["rank"] is not None:
        check_rank(group["rank"], f"{place}: rank")
    count(group["update_proj_gap"], f"{place}: update_proj_gap")
    count(group["seed"], f"{place}: seed", least=0, most=2**32 - 1)
    check_not_negative(group, ("lr", "weight_decay", "eps"), place)
    check_betas(group, place)
    if not finite(group["scale"], f"{place}: scale") > 0:
        raise PlanError("must be above 0", place=f"{place}: scale", value=group["scale"])
    growth = group["norm_growth"]
    if growth is not None and not finite(growth, f"{place}: norm_growth") > 1:
        remedy = "Give a factor such as 1.01, or None for no limit"
        raise PlanError(
            "must be above 1", place=f"{place}: norm_growth", value=growth, remedy=remedy
        )
