"""What cannot be meant, refused before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from trainplan.errors import PlanError, nearest
from trainplan.laws.order.cost import CURVATURES

MOMENTS = ("recursed", "frozen")


def check_settings(saved: dict[str, Any], settings: str, path: Path) -> dict[str, Any]:
    """Refuse the checkpoint of another estimate."""
    if saved.get("settings") != settings:
        raise PlanError(
            "belongs to another estimate",
            place="checkpoint",
            value=str(path),
            remedy="Name another file, or delete it",
        )
    return saved


def check_options(
    curvature: str,
    terms: int,
    moments: str,
    projection: int | None,
    split: object,
    max_norm: float | None,
) -> None:
    """Refuse options that do not go together."""
    for place, value, known in (
        ("curvature", curvature, CURVATURES),
        ("moments", moments, MOMENTS),
    ):
        if value not in known:
            raise PlanError("unknown", place=place, value=value, remedy=nearest(value, known))
    if terms not in (0, 1, 2) or (terms == 2 and curvature == "fisher"):
        remedy = "0, 1 or 2; fisher has no second term"
        raise PlanError("no such number of terms", place="terms", value=terms, remedy=remedy)
    if projection is not None and curvature != "secant":
        raise PlanError(
            "only a table is projected",
            place="projection",
            value=projection,
            remedy="Leave it out: Hessian-vector products store no gradients",
        )
    if (split is None) == (curvature == "fisher"):
        remedy = "Give split=(outputs, loss) with curvature='fisher', and only then"
        raise PlanError("outputs and loss must be apart", place="split", remedy=remedy)
    if max_norm is not None and moments == "frozen":
        remedy = "Use moments='recursed'"
        raise PlanError("not with frozen moments", place="max_norm", value=max_norm, remedy=remedy)


def check_noise(model: nn.Module, noise_seed: int | None) -> None:
    """Refuse dropout that is not tied to the batch."""
    noisy = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0
    ]
    if noisy and noise_seed is None:
        raise PlanError(
            "dropout would be mistaken for an effect of the order",
            place="model",
            value=noisy[0],
            remedy="Train under batch_noise(seed, j) and give noise_seed=seed, or set p=0",
        )
