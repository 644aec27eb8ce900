"""Hold the norms of weights, so that the rate that was set is the rate that acts.

Where a normalization layer follows a matrix, its scale does not matter, but the size of a step
relative to it does: as the norm grows, the effective learning rate decays in secret. Here each
matrix is put back to its initial norm after a step. Lyle et al., 2024, "Normalization and Effective
Learning Rates in Reinforcement Learning", NeurIPS, arXiv 2407.01800.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainplan.errors import PlanError, nearest
from trainplan.optim.weight_norms import chosen, frobenius, project, project_gain
from trainplan.schedules.values import count, finite

KEY = "norm_projection"
"""Under which an optimizer's checkpoint holds the initial norms."""
KNOB = "effective_lr"
SCALES = ("none", "project", "decay")
_FOLLOWED: weakref.WeakSet[Any] = weakref.WeakSet()


class NormProjector:
    """Puts weights back to their initial norms after every so many steps of an optimizer.

    Make it after initialization and before the first step: the norms of now are the initial ones.
    `attach` follows any optimizer, whose checkpoints then hold them, so that a resumed run keeps
    them; or call `step` yourself after each ``optimizer.step()``. The moments of the optimizer
    are not rescaled. Where scale does not matter the projection changes no output. Projecting
    every step removes the implicit decay: give the rate a schedule.

    Args:
        model: Whose parameters they are.
        weights: Names of parameters, or a function of name and parameter that chooses them. Choose
            only matrices; `trainplan.optim.find_scale_invariant` says which are indifferent.
        every: Steps between two projections.
        norms: Names of normalization layers whose gains and offsets are held as well.
        scale: How these are held: ``none``, ``project`` (`project_gain`) or ``decay`` towards
            gain 1 and offset 0.
        decay: Which part of the distance to (1, 0) ``decay`` takes away per step, in [0, 1].
        pretrained: Take the norms of now for initial although the optimizer has a past, or its
            checkpoint knows none.

    Attributes:
        initial: Initial norms by name.
        steps: Steps counted.

    Raises:
        PlanError: If there is no such weight, or one has the norm 0.

    >>> model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.LayerNorm(8), nn.Linear(8, 1))
    >>> projector = NormProjector(model, ["0.weight"])
    >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    >>> projector.attach(optimizer)
    >>> for _ in range(5):
    ...     model(torch.randn(16, 8)).square().mean().backward()
    ...     optimizer.step()
    >>> {name: round(ratio, 4) for name, ratio in projector.ratios().items()}
    {'0.weight': 1.0}
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Iterable[str] | Callable[[str, Tensor], bool],
        *,
        every: int = 1,
        norms: Iterable[str] = (),
        scale: str = "none",
        decay: float = 1e-4,
        pretrained: bool = False,
    ) -> None:
        if scale not in SCALES:
            raise PlanError("unknown", place="scale", value=scale, remedy=nearest(scale, SCALES))
        self.decay = finite(decay, "decay")
        if not 0 <= self.decay <= 1:
            raise PlanError("a part lies in [0, 1]", place="decay", value=decay)
        self.model, self.scale, self.pretrained = model, scale, pretrained
        self.every = count(every, "every")
        self.weights = chosen(model, weights)
        self.norms = [_norm(model, name) for name in norms]
        self.steps = 0
        self.initial: dict[str, float] = {}
        self._targets = torch.empty(0)
        self._set(self.norms_now())
        self._optimizer: Any = None
        self._handles: dict[str, Any] = {}
        self._stepping = False

    def norms_now(self) -> dict[str, float]:
        """The present norms by name."""
        norms: list[float] = frobenius(list(self.weights.values())).tolist()
        return dict(zip(self.weights, norms, strict=True))

    def ratios(self) -> dict[str, float]:
        """The present norms in units of the initial ones, by name."""
        return {name: norm / self.initial[name] for name, norm in self.norms_now().items()}

    def step(self) -> None:
        """Count a step, and project if it is time."""
        self.steps += 1
        if self.steps % self.every == 0:
            self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Put weights, gains and offsets back now."""
        weights = list(self.weights.values())
        self._targets = project(weights, self._targets)
        for norm in self.norms if self.scale != "none" else ():
            gain: Tensor = norm.weight  # type: ignore[assignment]
            offset: Tensor | None = getattr(norm, "bias", None)
            if self.scale == "project":
                project_gain(gain, offset)
                continue
            share = 1 - (1 - self.decay) ** self.every
            gain.lerp_(torch.ones_like(gain), share)
            if offset is not None:
                offset.mul_(1 - share)

    # With an optimizer

    def param_groups(self, effective_lr: float | None = None) -> list[dict[str, Any]]:
        """Two groups for an optimizer: the projected weights, without decay, and all others.

        Args:
            effective_lr: A rate of their own for the projected weights: a setting of the
                groups that a plan's knob ``effective_lr`` can drive, while ``lr`` is for the
                others. Without it ``lr`` is for both.

        >>> model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.LayerNorm(8), nn.Linear(8, 1))
        >>> groups = NormProjector(model, ["0.weight"]).param_groups(effective_lr=0.01)
        >>> [len(group["params"]) for group in groups]
        [1, 4]
        """
        known = {id(p) for p in self.weights.values()}
        others = [p for p in self.model.parameters() if id(p) not in known and p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": list(self.weights.values()), "weight_decay": 0.0, "projected": True},
            {"params": others, "projected": False},
        ]
        for group in groups if effective_lr is not None else ():
            group[KNOB] = finite(effective_lr, KNOB)
        return groups

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Follow an optimizer: before its first step, and before its checkpoint is loaded.

        Raises:
            PlanError: If it has a past, or another projector follows it.
        """
        optimizer = _bare(optimizer)
        if optimizer in _FOLLOWED and optimizer is not self._optimizer:
            remedy = "Call detach() on that one"
            raise PlanError("another NormProjector follows it", place="optimizer", remedy=remedy)
        if optimizer.state and not self.steps and not self.pretrained:
            raise PlanError(
                "it has made steps, so the norms of now are not the initial ones",
                place="optimizer",
                remedy="Attach before the first step and before loading, or give pretrained=True",
            )
        self.detach()
        self._optimizer = optimizer
        _FOLLOWED.add(optimizer)
        self._handles = {
            "before": optimizer.register_step_pre_hook(self._before_step),
            "after": optimizer.register_step_post_hook(self._after_step),
            "save": optimizer.register_state_dict_post_hook(self._save),
            "load": optimizer.register_load_state_dict_pre_hook(self._load),
        }
        if any(KNOB in group for group in optimizer.param_groups):
            first = next(iter(self.weights.values()))
            self._handles["backward"] = first.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                self._go_last
            )

    def detach(self) -> None:
        """Let the optimizer go."""
        for handle in self._handles.values():
            handle.remove()
        if self._optimizer is not None:
            _FOLLOWED.discard(self._optimizer)
        self._handles, self._optimizer = {}, None

    def _go_last(self, _: Tensor) -> None:
        # Hooks run in the order they were registered in, and a plan attached since sets its values
        # in one: go behind it, before the step begins. If it has begun, as with a closure, the
        # plan's values are there, and have to be taken now.
        self._handles["before"].remove()
        self._handles["before"] = self._optimizer.register_step_pre_hook(self._before_step)
        if self._stepping:
            self._take_rates(self._optimizer)

    def _before_step(self, optimizer: Any, *_: Any) -> None:
        self._stepping = True
        self._take_rates(optimizer)

    def _take_rates(self, optimizer: Any) -> None:
        for group in optimizer.param_groups:
            if group.get("projected") and KNOB in group:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(float(group[KNOB]))
                else:
                    group["lr"] = float(group[KNOB])

    def _after_step(self, optimizer: Any, *_: Any) -> None:
        self._stepping = False
        found = getattr(optimizer, "found_inf", None)
        if found is None or not found.item():  # a fused step that overflowed is none
            self.step()

    # State

    def state_dict(self) -> dict[str, Any]:
        """The initial norms and the count of steps."""
        return {"initial": dict(self.initial), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: its initial norms replace those recorded here.

        Raises:
            PlanError: If it is of other weights.
        """
        if not isinstance(state, Mapping) or not {"initial", "steps"} <= set(state):
            raise PlanError("not the state of a NormProjector", place="state", value=type(state))
        different = sorted(set(state["initial"]) ^ set(self.weights))
        if different:
            remedy = "Choose the same weights as when it was saved"
            raise PlanError("is of other weights", place="state", value=different[0], remedy=remedy)
        self.steps = count(state["steps"], "state.steps", least=0)
        self._set({name: finite(state["initial"][name], name) for name in self.weights})

    def _set(self, initial: dict[str, float]) -> None:
        for name, norm in initial.items():
            if not 0 < norm < float("inf"):
                remedy = "Leave it out: there is no norm to hold"
                raise PlanError(f"{name} has the norm {norm}", place="weights", remedy=remedy)
        self.initial = initial
        self._targets = torch.tensor(list(initial.values()), dtype=torch.float64)

    def _save(self, optimizer: Any, state: dict[str, Any]) -> None:
        state[KEY] = self.state_dict()

    def _load(self, optimizer: Any, state: dict[str, Any]) -> None:
        if KEY in state:
            self.load_state_dict(state.pop(KEY))
        elif self.pretrained:
            self._set(self.norms_now())
        else:
            raise PlanError(
                "the optimizer's checkpoint holds no initial norms",
                place="optimizer",
                remedy="To hold the norms of the loaded weights, give pretrained=True",
            )


def _norm(model: nn.Module, name: str) -> nn.Module:
    module: nn.Module | None = dict(model.named_modules()).get(name)
    if module is None or not isinstance(getattr(module, "weight", None), Tensor):
        remedy = "Name normalization layers that have gains"
        raise PlanError("has no gains", place="norms", value=name, remedy=remedy)
    return module


def _bare(optimizer: Any) -> Any:
    """The optimizer inside Accelerate's wrapper, whose own hooks never run."""
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer
