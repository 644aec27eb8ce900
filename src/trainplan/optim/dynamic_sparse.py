"""Dynamic sparse training: one network, a sparse mask for each task, re-wired while it learns.

Every task gets a fresh random mask of the same weights. While the task is learned, the weights that
matter least are dropped now and then and others grow; what finished tasks own is frozen, yet may be
used. Sparse masks leave room for later tasks, and forgetting is zero by construction.

Yildirim, Gok Yildirim, Sokar, Mocanu and Vanschoren, 2024, "Continual Learning with Dynamic Sparse
Training", CPAL, arXiv 2308.14831. With a single task it is SET (random growth) or RigL (gradient).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainplan.errors import PlanError, nearest
from trainplan.optim.drop_fraction import PUBLISHED, DropFraction
from trainplan.optim.rewiring import DROPS, Growth
from trainplan.optim.sparse_checkpoint import load_sparse, save_sparse
from trainplan.optim.sparse_density import draw_masks, largest_weights, layer_densities
from trainplan.optim.sparse_layer import SparseLayer
from trainplan.optim.sparse_tasks import (
    FinishedTasks,
    active_share,
    masked_weights,
)
from trainplan.schedules.base import Schedule
from trainplan.schedules.values import count

KEY = "dynamic_sparse"
"""Under which an optimizer's checkpoint holds the masks."""
_FOLLOWED: weakref.WeakSet[Any] = weakref.WeakSet()


class DynamicSparse:
    """Masks for the layers of a model, one for each task, that are re-wired while it trains.

    Call `attach` for an optimizer and `begin` for a task; then train as ever, with any trainer.
    Each ``optimizer.step()`` keeps inactive weights at 0 and the finished tasks' weights at their
    values to the bit, whatever momentum or decay do. The optimizer's ``state_dict()`` holds the
    masks as well.

    What is not masked (biases, norms, running statistics, embeddings) goes on from task to task,
    and each finished task keeps a copy of its own.

    Clip gradients after `mask_gradients`, or their norm counts weights that are not there. An
    optimizer that keeps a second copy of the weights (schedule-free ones) cannot be used.

    Args:
        model: Whose ``Linear`` and convolution weights are masked.
        density: Share of active weights in (0, 1], or a share for each weight by name.
        init: How it is spread over layers: ``erk``, ``uniform``; or ``magnitude``, the largest.
        drop: What is dropped: ``magnitude``, ``set``, ``set-released`` or ``taylor``.
        grow: What grows: ``random``, ``unfired``, ``gradient`` or ``momentum``.
        every: Updates between two re-wirings; 0 for static masks. None takes place in the last
            ``every`` updates of a task whose length is known.
        drop_fraction: Which share of a layer's active weights is dropped, over the task's updates:
            a schedule or a number; or None to let a plan's knob ``drop_fraction`` drive it (it is
            0.5 until one does).
        reuse: Whether weights that earlier tasks own may grow into a mask like free ones, or only
            where nothing free is left. By default as published: yes by chance, no by gradient or
            momentum, since there frozen weights have none.
        bernoulli: Let random growth hit its number only on average, as in published code.
        per_unit: Least number of active inputs of every output unit when a task begins.
        power: Exponent of ``erk``.
        skip: Names, or beginnings of names, of weights to leave dense.
        seed: Of all random draws.

    Attributes:
        task: The task that is learned, or None.
        tasks: Finished tasks, in order.
        steps: Updates made in the present task.

    Raises:
        PlanError: If an argument cannot be meant.

    >>> model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    >>> sparse = DynamicSparse(model, density=0.25, grow="gradient", every=10)
    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    >>> sparse.attach(optimizer)
    >>> for task in ("first", "second"):
    ...     sparse.begin(task, steps=40)
    ...     for _ in range(40):
    ...         optimizer.zero_grad()
    ...         model(torch.randn(8, 16)).square().mean().backward()
    ...         optimizer.step()
    ...     sparse.end()
    >>> with sparse.activated("first"):
    ...     output = model(torch.ones(1, 16))
    >>> sorted(sparse.subnetwork("first"))
    ['0.bias', '0.weight', '2.bias', '2.weight']
    """

    def __init__(
        self,
        model: nn.Module,
        density: float | Mapping[str, float] = 0.2,
        *,
        init: str = "erk",
        drop: str = "magnitude",
        grow: str = "random",
        every: int = 400,
        drop_fraction: Schedule | float | None = PUBLISHED,
        reuse: bool | None = None,
        bernoulli: bool = False,
        per_unit: int = 0,
        power: float = 1.0,
        skip: Iterable[str] = (),
        seed: int = 0,
    ) -> None:
        if drop not in DROPS:
            raise PlanError("unknown", place="drop", value=drop, remedy=nearest(drop, DROPS))
        by_chance = grow in ("random", "unfired")
        self.growth = Growth(grow, by_chance if reuse is None else reuse, bernoulli)
        self.drop, self.every = drop, count(every, "every", least=0)
        self.drop_fraction = DropFraction(drop_fraction)
        self.model, self._init = model, init
        self._per_unit = count(per_unit, "per_unit", least=0)
        params = masked_weights(model, skip)
        shapes = {name: tuple(p.shape) for name, p in params.items()}
        self.densities = layer_densities(shapes, density, init, power=power)
        if init == "magnitude" and isinstance(density, Mapping):
            remedy = "Give one density, or init='uniform'"
            raise PlanError(
                "magnitudes decide each layer's share", place="init", value=init, remedy=remedy
            )
        fired = grow == "unfired"
        self.layers = {name: SparseLayer(p, remember_fired=fired) for name, p in params.items()}
        self.generator = torch.Generator().manual_seed(count(seed, "seed", least=0, most=2**63))
        self.task: str | None = None
        self.finished = FinishedTasks(model, self.layers)
        self.steps, self.length = 0, 0
        self._optimizer: Any = None
        self._handles: list[Any] = []
        self._masked = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """Finished tasks, in order."""
        return tuple(self.finished.masks)

    # Tasks

    def begin(self, task: str, steps: int = 0) -> None:
        """Draw a mask for a new task, and forget the optimizer's moments.

        Args:
            task: Its name.
            steps: How many updates it will have; 0 if unknown, which a ``drop_fraction`` with
                relative durations does not allow.

        Raises:
            PlanError: If another task is being learned, or the name is taken.
        """
        if self.task is not None or task in self.finished.masks:
            remedy = "Call end() first" if self.task is not None else "Give it another name"
            raise PlanError("cannot begin", place="task", value=task, remedy=remedy)
        self.length = count(steps, "steps", least=0)
        if self.every:
            self.drop_fraction.begin(self.length)
        weights = {name: layer.store for name, layer in self.layers.items()}
        if self._init == "magnitude":
            share = next(iter(self.densities.values()))
            masks = largest_weights(weights, share)
        else:
            masks = draw_masks(weights, self.densities, self.generator, per_unit=self._per_unit)
        for name, layer in self.layers.items():
            layer.begin(masks[name])
        self.task, self.steps, self._masked = task, 0, False
        if self._optimizer is not None:
            self._optimizer.state.clear()

    def end(self) -> None:
        """Freeze what the task has learned; the model stays as it is, this task's network."""
        if self.task is None:
            raise PlanError("no task is being learned", place="task", remedy="Call begin() first")
        self.finished.add(self.task)
        self.task = None

    @contextmanager
    def activated(self, task: str) -> Iterator[nn.Module]:
        """The model as a finished task's network, until the block ends.

        Raises:
            PlanError: If there is no such task.
        """
        with self.finished.activated(task) as model:
            yield model

    def subnetwork(self, task: str, *, layout: str = "dense") -> dict[str, Tensor]:
        """A finished task's network as a state dict for a model of the same architecture.

        Args:
            task: Which.
            layout: ``dense``; or ``coo``, masked weights as sparse tensors that hold only what is
                active, for storage (``to_dense()`` before loading).

        Raises:
            PlanError: If there is no such task or layout.
        """
        return self.finished.export(task, layout)

    def density(self, task: str | None = None) -> float:
        """The share of active weights really reached, of a finished task or the present mask."""
        present = {name: layer.mask for name, layer in self.layers.items()}
        masks = present if task is None else self.finished.of(task)
        return active_share(masks.values())

    def frozen(self) -> float:
        """The share of weights that finished tasks own."""
        return active_share(layer.used for layer in self.layers.values())

    # Updates

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Follow an optimizer instead of any before; attach a plan after this.

        Raises:
            PlanError: If another `DynamicSparse` follows it.
        """
        if optimizer in _FOLLOWED and optimizer is not self._optimizer:
            remedy = "Call detach() on that one"
            raise PlanError("another DynamicSparse follows it", place="optimizer", remedy=remedy)
        self.detach()
        self._optimizer = optimizer
        _FOLLOWED.add(optimizer)
        self.drop_fraction.offer(optimizer.param_groups)
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(lambda *_: self._after_step()),
            optimizer.register_state_dict_post_hook(self._save),
            optimizer.register_load_state_dict_pre_hook(self._load),
        ]

    def detach(self) -> None:
        """Let the optimizer go."""
        for handle in self._handles:
            handle.remove()
        if self._optimizer is not None:
            _FOLLOWED.discard(self._optimizer)
        self._handles, self._optimizer = [], None

    def mask_gradients(self) -> None:
        """Clear the gradients of all weights that may not move: once per update, before clipping.

        Without clipping there is no need to call it.
        """
        self._mask(save=True)
        self._masked = True

    def _before_step(
        self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Mask the gradients; those that a closure is to make, once it has made them."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._mask(save=not self._masked)
            return None

        def masked() -> Any:
            loss = closure()
            self._mask(save=not self._masked)
            return loss

        return args[:1], {**kwargs, "closure": masked}

    def _mask(self, *, save: bool) -> None:
        if self.task is None:
            return
        asks = self.growth.rule == "gradient" or self.drop == "taylor"
        keep = save and asks and self._rewires_at(self.steps + 1)
        for layer in self.layers.values():
            layer.mask_gradient(keep_dense=keep, through=self._through)

    @property
    def _through(self) -> bool:
        return self.growth.rule == "momentum" and self.every > 0

    def _after_step(self) -> None:
        if self.task is None:
            return
        self._masked = False
        found = getattr(self._optimizer, "found_inf", None)
        skipped = found is not None and bool(found.item())  # a fused step that overflowed
        self.steps += not skipped
        rewires = not skipped and self._rewires_at(self.steps)
        fraction = self.fraction() if rewires else 0.0
        for layer in self.layers.values():
            layer.restore()
            state = self._optimizer.state.get(layer.param, {})
            if rewires and layer.param.grad is not None:
                layer.rewire(fraction, self.drop, self.growth, state, self.generator)
            elif not self._through:
                layer.clear_state(state)
            layer.dense = None

    def _rewires_at(self, step: int) -> bool:
        if not self.every or step % self.every:
            return False
        return not self.length or step <= self.length - self.every

    def fraction(self) -> float:
        """The share of active weights that a re-wiring after the present update drops."""
        return self.drop_fraction(self.steps, self._optimizer.param_groups)

    # State

    def state_dict(self) -> dict[str, Any]:
        """Masks, stored values, finished tasks, counts and the generator's state."""
        return save_sparse(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; the model's own weights are loaded with the model.

        Raises:
            PlanError: If it is of another model.
        """
        load_sparse(self, state)
        self._masked = False
        if self.every and self.task is not None:
            self.drop_fraction.begin(self.length)

    def _save(self, optimizer: Any, state: dict[str, Any]) -> None:
        state[KEY] = self.state_dict()

    def _load(self, optimizer: Any, state: dict[str, Any]) -> None:
        if KEY not in state:
            raise PlanError(
                "the optimizer's checkpoint holds no masks",
                place="optimizer",
                remedy="Load one that was saved while a DynamicSparse followed the optimizer",
            )
        self.load_state_dict(state.pop(KEY))
