"""Train in a given order of batches, with noise that belongs to the batch and not to its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainplan.errors import PlanError

LossFunction = Callable[[nn.Module, Any], Tensor]
"""``loss_fn(model, batch)`` gives a scalar."""


class Batches(Protocol):
    """A list of batches, or anything with a length that gives batch ``j``."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int, /) -> Any:
        """Batch number ``index``; the same whenever it is asked for."""


@contextmanager
def batch_noise(seed: int | None, batch: int) -> Iterator[None]:
    """Inside, torch's random numbers depend on the seed and the batch alone.

    Without it, dropout differs from place to place, and its noise is mistaken for an effect of the
    order. The generator's own state is put back afterwards. ``seed=None`` changes nothing.

    >>> with batch_noise(0, batch=7):
    ...     a = torch.rand(1)
    >>> with batch_noise(0, batch=7):
    ...     print(bool(torch.rand(1) == a))
    True
    """
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed((seed * 1_000_003 + batch) % 2**63)
        yield


def full_order(order: Sequence[int], batches: int, steps: int) -> list[int]:
    """The batch of every step: a permutation for each pass, or one for all of them.

    Raises:
        PlanError: If a pass does not use each batch exactly once.

    >>> full_order([2, 0, 1], batches=3, steps=6)
    [2, 0, 1, 2, 0, 1]
    """
    given = [int(j) for j in order]
    if len(given) == batches:
        given = given * (steps // batches)
    if len(given) != steps or steps % batches:
        raise PlanError(
            f"must name {batches} batches, or {steps} for every step",
            place="order",
            value=len(given),
            remedy="An order is a permutation of the batches, in each pass",
        )
    for start in range(0, steps, batches):
        if sorted(given[start : start + batches]) != list(range(batches)):
            raise PlanError(
                "must use each batch exactly once per pass",
                place=f"order[{start}:{start + batches}]",
                value=given[start : start + batches],
                remedy=f"Permute the numbers 0 to {batches - 1}",
            )
    return given


def train_in_order(
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: LossFunction,
    batches: Batches,
    order: Sequence[int] | None = None,
    *,
    noise_seed: int | None = None,
    max_norm: float | None = None,
    scheduler: Any = None,
    start: int = 0,
) -> None:
    """Train really: one optimizer step per batch, in this order.

    With an `OrderRecorder` on the optimizer it makes the reference run; without, the truth that an
    estimate is compared with.

    Args:
        model: Trained in place.
        optimizer: Its optimizer.
        loss_fn: ``loss_fn(model, batch)`` gives the scalar loss.
        batches: ``batches[j]`` is batch ``j``.
        order: The batch of each step, by default 0, 1, 2, ...
        noise_seed: See `batch_noise`.
        max_norm: Clip the gradient's norm to this.
        scheduler: Stepped after every step, if given.
        start: How many steps are done already; for going on with a recorded run.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> loss = lambda model, x: model(x).square().mean()
        >>> train_in_order(model, optimizer, loss, [torch.ones(1, 1)] * 3, order=[2, 0, 1])
    """
    steps = range(len(batches)) if order is None else order
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for j in list(steps)[start:]:
        optimizer.zero_grad(set_to_none=True)
        with batch_noise(noise_seed, j) if noise_seed is not None else nullcontext():
            loss_fn(model, batches[j]).backward()  # type: ignore[no-untyped-call]
        if max_norm is not None:
            nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
