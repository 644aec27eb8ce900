"""Load an optimizer's state in the types that it was saved in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def restore_types(optimizer: torch.optim.Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Put tensors back as they were saved, after ``load_state_dict`` has cast them.

    PyTorch casts every floating-point state to its parameter's type, which would cut float32
    moments of a bfloat16 parameter. They are copied, so that training changes nothing in the file.
    """
    names = [name for group in state_dict["param_groups"] for name in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, parameter in zip(names, parameters, strict=True):
        for key, value in state_dict["state"].get(name, {}).items():
            if isinstance(value, torch.Tensor):
                optimizer.state[parameter][key] = value.to(parameter.device, copy=True)
