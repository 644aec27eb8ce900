"""JAX and Optax: a plan's knobs inside ``jit``.

A resolved schedule *is* an Optax schedule, so for the learning rate alone nothing is needed:

    optimizer = optax.adamw(learning_rate=lr.resolve(20_000))

For a whole plan (weight decay, betas, momentum), whatever its unit:

    optimizer = tp.optax.inject(plan, optax.adamw, mask=no_biases)

The clock is the count that Optax keeps in ``opt_state``. Save that and the run goes on where it
was, also under a plan that was extended or branched: the plan is code, not state.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from trainplan._extras import require
from trainplan.errors import PlanError, nearest
from trainplan.integrations.counts import by_count, counts_updates
from trainplan.knobs import Value
from trainplan.plan import Plan
from trainplan.schedules.base import Schedule

optax = require("optax", extra="jax")

_ARGUMENTS = {"lr": ("learning_rate",), "betas": ("b1", "b2")}
"""What Optax calls the knobs that it calls otherwise."""


def schedule(plan: Plan, name: str = "lr") -> Callable[[Any], Any]:
    """One knob of a plan as an Optax schedule: a function of the number of updates done.

    In a plan of steps this is ``plan[name]``. Integer counts are exact in float32 code as far as
    they reach (2^31 - 1): the last of 2^25 steps is still told from the end. A plan of tokens,
    samples or epochs is converted with the plan's rate (``tokens_per_step``, ...).

    Args:
        plan: The plan.
        name: A knob that is one schedule.

    Raises:
        PlanError: If the knob is a controller or several numbers, or lacks the rate.

    >>> import trainplan as tp
    >>> lr = schedule(tp.Plan(horizon=10, lr=tp.schedules.linear(0.5)))
    >>> optimizer = optax.sgd(lr)
    """
    knob = plan[name]
    if not isinstance(knob, Schedule):
        raise PlanError(
            "not one schedule", place=name, value=knob, remedy="Use inject for the whole plan"
        )
    return by_count(plan, knob, name)


def inject(plan: Plan, factory: Callable[..., Any], /, **fixed: Any) -> Any:
    """An optimizer whose hyperparameters are a plan's knobs.

    Built with ``optax.inject_hyperparams``, which keeps the values of the last update in
    ``opt_state.hyperparams`` (see `values`). Only what the plan drives is injected; everything
    else stays as Optax, or ``fixed``, has it. Knobs that the optimizer lacks are for the data or
    the loss and are left to them.

    Controllers, and every knob of a plan in tokens or samples without a rate, cannot follow a
    count: they stay as they are in ``opt_state`` until `set_values` changes them.

    Args:
        plan: The plan. ``lr`` is given as ``learning_rate``, ``betas`` as ``b1`` and ``b2``, and
            any other knob under its own name.
        factory: A function of Optax that builds an optimizer, such as ``optax.adamw``.
        **fixed: Its other arguments.

    Returns:
        An ``optax.GradientTransformationExtraArgs``.

    Raises:
        PlanError: If no knob is an argument of the factory, or one is given twice.

    >>> import trainplan as tp
    >>> plan = tp.Plan(horizon=10, lr=tp.schedules.linear(0.5), weight_decay=0.1)
    >>> optimizer = inject(plan, optax.adamw, eps=1e-6)
    """
    known = inspect.signature(factory).parameters
    driven = {
        argument: given
        for name in plan
        for argument, given in _injected(plan, name)
        if argument in known
    }
    if not driven:
        name = next(iter(plan))
        raise PlanError(
            f"{getattr(factory, '__name__', factory)} has no such argument",
            place=name,
            remedy=nearest(name, known),
        )
    if twice := sorted(set(driven) & set(fixed)):
        raise PlanError(
            "the plan already drives this argument",
            place=twice[0],
            value=fixed[twice[0]],
            remedy="Give it once: in the plan, or here",
        )

    def build(**values: Any) -> Any:
        return factory(**values, **fixed)

    # Optax reads the arguments' names from the signature.
    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(argument, inspect.Parameter.KEYWORD_ONLY) for argument in driven]
    )
    return optax.inject_hyperparams(build)(**driven)


def values(plan: Plan, opt_state: Any) -> dict[str, Value]:
    """What the last update used (before the first: will use), by the plan's names.

    Args:
        plan: The plan.
        opt_state: The state of an optimizer made by `inject`, also inside ``optax.chain``,
            ``optax.MultiSteps`` and the like.

    >>> import jax.numpy as jnp, trainplan as tp
    >>> plan = tp.Plan(lr=0.5, betas=(0.9, 0.25))
    >>> state = inject(plan, optax.adam).init({"w": jnp.ones(2)})
    >>> {name: value for name, value in values(plan, state).items() if name == "lr"}
    {'lr': 0.5}
    """
    found = _hyperparams(opt_state)
    read: dict[str, Value] = {}
    for name in plan:
        arguments = _ARGUMENTS.get(name, (name,))
        if all(argument in found for argument in arguments):
            numbers = tuple(float(found[argument]) for argument in arguments)
            read[name] = numbers if isinstance(plan.knobs[name], tuple) else numbers[0]
    return read


def set_values(plan: Plan, opt_state: Any, t: float) -> Any:
    """A state whose next update uses the plan's values at ``t``.

    For controllers, and for a clock of your own. Knobs that follow Optax's count (see `inject`)
    go on following it.

    Args:
        plan: The plan.
        opt_state: The state of an optimizer made by `inject`.
        t: Completed units of the plan.

    Returns:
        The new state; the old one is left as it was. Nothing is compiled again.

    >>> import jax.numpy as jnp, trainplan as tp
    >>> plan = tp.Plan(lr=tp.schedules.ReduceOnPlateau(0.5, factor=0.5, patience=0))
    >>> state = inject(plan, optax.sgd).init({"w": jnp.ones(2)})
    >>> for loss in (1.0, 1.0):
    ...     plan.controllers["lr"].observe(0, loss=loss)
    >>> values(plan, set_values(plan, state, t=2))
    {'lr': 0.25}
    """
    import jax.numpy as jnp

    old = _hyperparams(opt_state)
    new = dict(old)
    for name, value in plan.at(t).items():
        numbers = value if isinstance(value, tuple) else (value,)
        for argument, number in zip(_ARGUMENTS.get(name, (name,)), numbers, strict=True):
            if argument in old:
                new[argument] = jnp.asarray(number, dtype=old[argument].dtype)
    return optax.tree_utils.tree_set(opt_state, hyperparams=new)


def _hyperparams(opt_state: Any) -> dict[str, Any]:
    found = optax.tree_utils.tree_get(opt_state, "hyperparams")
    if found is None:
        raise PlanError(
            "no injected hyperparameters in this state",
            place="opt_state",
            remedy="Build the optimizer with trainplan.optax.inject",
        )
    return found  # type: ignore[no-any-return]


def _injected(plan: Plan, name: str) -> Iterator[tuple[str, Any]]:
    """The arguments that a knob drives: each with a function of the count, or a first value."""
    knob = plan[name]
    arguments = _ARGUMENTS.get(name, (name,))
    items = knob if isinstance(knob, tuple) else (knob,)
    if len(items) != len(arguments):
        raise PlanError(f"Optax takes {len(arguments)} number(s) here", place=name, value=knob)
    for argument, item in zip(arguments, items, strict=True):
        if not isinstance(item, Schedule):
            yield argument, float(item.value(0))
        elif counts_updates(plan):
            yield argument, by_count(plan, item, name)
        else:
            yield argument, float(item(0))
