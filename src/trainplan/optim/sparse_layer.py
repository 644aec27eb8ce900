"""One weight of a network whose tasks each have a mask of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from trainplan.errors import PlanError
from trainplan.optim.rewiring import Growth, drop, grow


class SparseLayer:
    """A weight, its mask, and what earlier tasks own of it.

    Attributes:
        param: The weight: 0 where inactive, the finished tasks' values where they own it.
        store: Values of all tasks together; where no task owns an entry, its initial value.
        mask: Entries that are active in the present task, bool.
        used: Entries that finished tasks own, bool; they never change again.
        fired: Entries that were active at any time, or None if nobody asks.
        dense: The gradient before it was masked, kept for a coming re-wiring.
    """

    def __init__(self, param: nn.Parameter, *, remember_fired: bool = False) -> None:
        self.param = param
        self.store = param.detach().clone()
        self.mask = torch.ones_like(param, dtype=torch.bool)
        self.used = torch.zeros_like(self.mask)
        self.fired = torch.zeros_like(self.mask) if remember_fired else None
        self.dense: Tensor | None = None
        self._settle()

    def begin(self, mask: Tensor) -> None:
        """Take a new task's mask; active entries begin at their stored values."""
        self._follow()
        self.mask = mask.to(self.param.device)
        self._settle()
        self.param.data.copy_(self.store * self.mask)

    def end(self) -> Tensor:
        """Store what the task has learned and let it own its entries; returns its mask."""
        self.store = torch.where(self.mask & ~self.used, self.param.detach(), self.store)
        self.used = self.used | self.mask
        return self.mask.clone()

    def mask_gradient(self, *, keep_dense: bool, through: bool) -> None:
        """Clear the gradient of all that may not move.

        Args:
            keep_dense: Keep the whole gradient until the re-wiring that follows.
            through: Leave inactive entries their gradient, so that their momentum grows.
        """
        grad = self.param.grad
        if grad is None:
            return
        self._follow()
        if keep_dense:
            self.dense = grad.clone()
        if not through:
            self._clear(grad)

    def restore(self) -> None:
        """Undo what an update did where it may not: momentum and decay move weights as well."""
        self._follow()
        data = self.param.data
        self._clear(data)
        if self._owned is not None:
            # Cleared bits take those of the owned values; adding could not hide a NaN.
            _bits(data).bitwise_or_(_bits(self._owned))

    def clear_state(self, state: dict[str, Any]) -> None:
        """Forget an optimizer's moments of all that does not move."""
        for moment in moments(self.param, state):
            self._clear(moment)

    def rewire(
        self,
        fraction: float,
        rule: str,
        growth: Growth,
        state: dict[str, Any],
        generator: torch.Generator,
    ) -> int:
        """Drop a fraction of the active weights and grow as many; returns how many grew.

        A weight that is dropped and grown at once keeps its value. One that grows where an earlier
        task owns the entry gets that task's value, and every other begins at 0.
        """
        old, grad = self.mask, self.dense
        self.dense = None
        kept = drop(old, self.param.detach(), fraction, rule, grad)
        signal = momentum(self.param, state) if growth.rule == "momentum" else grad
        number = int(old.sum()) - int(kept.sum())
        self.mask = grow(
            kept,
            number,
            growth,
            signal=signal,
            used=self.used,
            fired=self.fired,
            generator=generator,
        )
        self._settle()
        new = self.mask & ~old
        self.param.data.masked_fill_(new, 0.0)  # what grows where a task owns it is restored below
        self.restore()
        self.clear_state(state)
        for moment in moments(self.param, state):
            moment.masked_fill_(new, 0)
        return int(new.sum())

    def state_dict(self) -> dict[str, Tensor]:
        """Values and masks."""
        state = {"store": self.store, "mask": self.mask, "used": self.used}
        return state if self.fired is None else {**state, "fired": self.fired}

    def load_state_dict(self, state: dict[str, Tensor], place: str) -> None:
        """Take over values and masks; the weight itself is the model's to load.

        Raises:
            PlanError: If they are of another weight.
        """
        for name, now in self.state_dict().items():
            if name not in state or state[name].shape != now.shape:
                found = list(state[name].shape) if name in state else None
                remedy = f"Give the settings and the model, of shape {list(now.shape)}, it was"
                remedy += " saved with"
                raise PlanError("not of this weight", place=place, value=found, remedy=remedy)
            setattr(self, name, state[name].to(now).clone())
        self._settle()

    def _clear(self, values: Tensor) -> None:
        """Set what does not move to 0, even NaN, in a tenth of the time of a masked fill."""
        if values.dtype == self.store.dtype and values.device == self.store.device:
            _bits(values).bitwise_and_(self._moving)
        else:
            values.masked_fill_(self._moving.to(values.device) == 0, 0)

    def _follow(self) -> None:
        """Go where the weight has gone: trainers move a model to its device late."""
        device = self.param.device
        if self.store.device != device or self.store.dtype != self.param.dtype:
            self.store, self.mask = self.store.to(self.param.detach()), self.mask.to(device)
            self.used = self.used.to(device)
            self.fired = None if self.fired is None else self.fired.to(device)
            self._settle()

    def _settle(self) -> None:
        """Work out what stands still, and at what value, until the mask changes."""
        kind = _INTEGERS[self.store.dtype]
        self._moving = (self.mask & ~self.used).to(kind).neg_()  # all bits of what moves
        shared = self.mask & self.used
        self._owned = self.store.masked_fill(~shared, 0.0) if shared.any() else None
        if self.fired is not None:
            self.fired |= self.mask


_INTEGERS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


def _bits(values: Tensor) -> Tensor:
    """The same memory as integers."""
    return values.view(_INTEGERS[values.dtype])


def moments(param: Tensor, state: dict[str, Any]) -> Iterator[Tensor]:
    """What an optimizer keeps for each entry of a weight."""
    for value in state.values():
        if torch.is_tensor(value) and value.shape == param.shape and param.ndim:
            yield value


def momentum(param: Tensor, state: dict[str, Any]) -> Tensor:
    """The direction an optimizer would take: SGD's momentum, or Adam's m / (sqrt(v) + 1e-8).

    Raises:
        PlanError: If the optimizer keeps neither.
    """
    if torch.is_tensor(state.get("momentum_buffer")):
        found: Tensor = state["momentum_buffer"]
        return found
    if torch.is_tensor(state.get("exp_avg")) and state["exp_avg"].shape == param.shape:
        mean: Tensor = state["exp_avg"]
        square = state.get("exp_avg_sq")
        return mean if square is None else mean / (square.sqrt() + 1e-8)
    raise PlanError(
        "the optimizer keeps no momentum of this weight",
        place="grow",
        value="momentum",
        remedy="Use SGD with momentum or an Adam, or grow='gradient'",
    )
