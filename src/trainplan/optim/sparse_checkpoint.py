"""What a checkpoint of dynamic sparse training holds: tensors, numbers and names only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainplan.errors import PlanError
from trainplan.schedules.values import count

if TYPE_CHECKING:
    from trainplan.optim.dynamic_sparse import DynamicSparse

PARTS = ("task", "steps", "length", "layers", "masks", "others", "generator")


def save_sparse(sparse: DynamicSparse) -> dict[str, Any]:
    """The state as plain data; tensors are not copied, as in ``Module.state_dict()``."""
    return {
        "task": sparse.task,
        "steps": sparse.steps,
        "length": sparse.length,
        "layers": {name: layer.state_dict() for name, layer in sparse.layers.items()},
        "masks": {task: dict(masks) for task, masks in sparse.finished.masks.items()},
        "others": {task: dict(values) for task, values in sparse.finished.others.items()},
        "generator": sparse.generator.get_state(),
    }


def load_sparse(sparse: DynamicSparse, state: Mapping[str, Any]) -> None:
    """Put a state back.

    Raises:
        PlanError: If it is not one, or of another model.
    """
    if not isinstance(state, Mapping) or not set(PARTS) <= set(state):
        raise PlanError("not the state of a DynamicSparse", place="state", value=type(state))
    if set(state["layers"]) != set(sparse.layers):
        different = sorted(set(state["layers"]) ^ set(sparse.layers))
        raise PlanError(
            "the saved masks are of other layers",
            place="state.layers",
            value=different[0],
            remedy="Give the same model and skip as when it was saved",
        )
    for name, layer in sparse.layers.items():
        layer.load_state_dict(state["layers"][name], f"state.layers.{name}")
    sparse.finished.masks = {
        task: {name: mask.to(sparse.layers[name].mask).clone() for name, mask in masks.items()}
        for task, masks in state["masks"].items()
    }
    sparse.finished.others = {
        task: {name: value.clone() for name, value in values.items()}
        for task, values in state["others"].items()
    }
    sparse.task = state["task"]
    sparse.steps = count(state["steps"], "state.steps", least=0)
    sparse.length = count(state["length"], "state.length", least=0)
    sparse.generator.set_state(state["generator"].cpu())
