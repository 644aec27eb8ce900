"""Which weights are masked, and the networks of finished tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainplan.errors import PlanError, nearest
from trainplan.optim.sparse_layer import SparseLayer


class FinishedTasks:
    """Masks of the tasks that are learned, and a copy for each of all that is not masked.

    Attributes:
        masks: By task and name of the weight, bool.
        others: Parameters and buffers without a mask, by task and name.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, SparseLayer]) -> None:
        self.model, self.layers = model, layers
        self.masks: dict[str, dict[str, Tensor]] = {}
        self.others: dict[str, dict[str, Tensor]] = {}

    def add(self, task: str) -> None:
        """Freeze what the present task has learned."""
        self.masks[task] = {name: layer.end() for name, layer in self.layers.items()}
        self.others[task] = {
            name: value.detach().clone()
            for name, value in self._everything()
            if name not in self.layers
        }

    def of(self, task: str) -> dict[str, Tensor]:
        """The masks of a task.

        Raises:
            PlanError: If there is no such task.
        """
        if task not in self.masks:
            remedy = nearest(task, self.masks) if self.masks else "Call end() when one is learned"
            raise PlanError("no such finished task", place="task", value=task, remedy=remedy)
        return self.masks[task]

    def values(self, task: str) -> dict[str, Tensor]:
        """All parameters and buffers of a task's network."""
        masks = self.of(task)
        own = {name: layer.store * masks[name] for name, layer in self.layers.items()}
        return {**self.others[task], **own}

    def export(self, task: str, layout: str) -> dict[str, Tensor]:
        """A task's network as a state dict of the model; see `DynamicSparse.subnetwork`."""
        if layout not in ("dense", "coo"):
            raise PlanError("unknown", place="layout", value=layout, remedy="Use dense or coo")
        persistent = self.model.state_dict().keys()
        state = {n: v.clone() for n, v in self.values(task).items() if n in persistent}
        if layout == "coo":
            for name, mask in self.of(task).items():
                found = self.layers[name].store[mask]
                state[name] = torch.sparse_coo_tensor(
                    mask.nonzero().T, found, mask.shape, is_coalesced=True, check_invariants=False
                )
        return state

    @contextmanager
    def activated(self, task: str) -> Iterator[nn.Module]:
        """The model as a task's network, until the block ends."""
        values = self.values(task)
        present = {n: v for n, v in self._everything() if n in values}
        before = {name: value.detach().clone() for name, value in present.items()}
        try:
            _copy(values, present)
            yield self.model
        finally:
            _copy(before, present)

    def _everything(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.model.named_parameters(remove_duplicate=False)
        yield from self.model.named_buffers(remove_duplicate=False)


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    for name, tensor in into.items():
        tensor.copy_(values[name])


def masked_weights(model: nn.Module, skip: Iterable[str] = ()) -> dict[str, nn.Parameter]:
    """The weights of a model's linear and convolution layers, by name; what is tied comes once.

    Args:
        model: The model.
        skip: Names, or beginnings of names, to leave out.

    Raises:
        PlanError: If none is left, or something to skip is not there.
    """
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    left_out = (skip,) if isinstance(skip, str) else tuple(skip)
    tables = (nn.Embedding, nn.EmbeddingBag)
    tied = {id(p) for m in model.modules() if isinstance(m, tables) for p in m.parameters()}
    owners = {f"{n}.weight" if n else "weight" for n, m in model.named_modules() if _is(m, kinds)}
    found = {n: p for n, p in model.named_parameters() if n in owners and id(p) not in tied}
    for part in left_out:
        if not any(name.startswith(part) for name in found):
            raise PlanError("no such weight", place="skip", value=part, remedy=nearest(part, found))
    kept = {name: p for name, p in found.items() if not name.startswith(left_out or ("\0",))}
    if not kept:
        raise PlanError("the model has no weight to mask", place="model", value=type(model))
    return kept


def _is(module: nn.Module, kinds: tuple[type, ...]) -> bool:
    """Whether it is such a layer; Transformers' transposed Linear counts."""
    return isinstance(module, kinds) or type(module).__name__ == "Conv1D"


def active_share(masks: Iterable[Tensor]) -> float:
    """The share of entries that are true, over all masks together."""
    masks = list(masks)
    return sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)
