"""Decisions about data that listen to the run, and cannot depend on the timing of threads.

Loaders draw batches before earlier ones are used. So a decision for step t uses only what was
observed up to step t - 1 - lag, where the lag is part of the plan: a run gives the same data with
any number of workers, and a lag too short for the loader is an error, not a race.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError
from trainplan.schedules.values import count, finite


@runtime_checkable
class Decider(Protocol):
    """What decides: any controller of a plan's knob, or one whose value is a list of numbers."""

    def value(self, t: float) -> Any:
        """What to use at time ``t``."""
        ...

    def observe(self, t: float, **signals: Any) -> None:
        """Hear what a step reported: numbers, and `Tally` for signals by example or domain."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What was learned, as plain data."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        ...


@dataclass(frozen=True)
class Tally:
    """A signal of one step by example (or domain): sums over ranks, and how many there were.

    Attributes:
        keys: Examples or names, in ascending order.
        sums: Sum of the values of each.
        counts: Number of values of each.
    """

    keys: tuple[Any, ...]
    sums: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def means(self) -> npt.NDArray[np.float64]:
        """(k,) mean value of each key."""
        means: npt.NDArray[np.float64] = np.divide(self.sums, self.counts)
        return means


_Cell = list[Any]
"""[sum, count] of a number, or {key: [sum, count]}."""


class Feedback:
    """What a decider has heard, and what it may know at each step.

    Args:
        decider: A controller; its state goes into the sampler's.
        lag: Steps by which observations count late. At least what the loader draws ahead, in
            steps: 0 without workers.
        keys: The examples (a number n: 0 to n - 1) or names that signals may be about.
        check_every: Compare the decider's state over ranks after so many steps.

    >>> from trainplan.schedules.controllers import ReduceOnPlateau
    >>> feedback = Feedback(ReduceOnPlateau(1.0, factor=0.5, patience=0), lag=1)
    >>> feedback.decide(0), feedback.decide(1)
    (1.0, 1.0)
    >>> feedback.observe(0, loss=1.0)
    >>> feedback.observe(1, loss=2.0)
    >>> feedback.decide(2), feedback.decide(3)
    (1.0, 0.5)
    """

    def __init__(
        self,
        decider: Decider,
        lag: int = 0,
        *,
        keys: int | tuple[str, ...] | None = None,
        check_every: int = 100,
    ) -> None:
        self.decider = decider
        self.lag = count(lag, "lag", least=0)
        self.keys = keys
        self.check_every = count(check_every, "check_every")
        self._known = -1
        """The last step whose observations the decider has heard."""
        self._heard: dict[int, dict[str, _Cell | dict[Any, _Cell]]] = {}
        self._after: dict[int, dict[str, Any]] = {-1: deepcopy(decider.state_dict())}
        """The decider's state after it has heard a step."""

    def observe(self, step: int, **signals: Any) -> None:
        """Report what a step (counted from 0) gave; several reports of a step add up.

        Under ``torch.distributed`` all ranks must call this equally often; what they report is
        added up, and a rank with nothing to say calls it without signals.

        Args:
            step: The optimizer step whose batch it is about.
            **signals: Each a number (of which the mean counts), or values by example or domain: a
                dictionary, or a pair of arrays of keys and values.

        Raises:
            PlanError: If the step was decided upon already, or a key is unknown.
        """
        step = count(step, "step", least=0)
        if step <= self._known:
            raise PlanError(
                f"step {step} was observed after its observations had counted",
                place="step",
                value=step,
                remedy="Report a whole step before the next batch is drawn, or give a larger lag",
            )
        for mine in self._gather(step, {k: self._cells(k, v) for k, v in signals.items()}):
            _add(self._heard.setdefault(step, {}), mine)

    def _cells(self, name: str, signal: Any) -> _Cell | dict[Any, _Cell]:
        if isinstance(signal, Mapping):
            keys, values = list(signal), list(signal.values())
        elif isinstance(signal, tuple) and len(signal) == 2:
            keys, values = (np.asarray(part).tolist() for part in signal)
        else:
            return [finite(_number(signal), name), 1]
        cells: dict[Any, _Cell] = {}
        for key, value in zip(keys, values, strict=True):
            self._check_key(name, key)
            cell = cells.setdefault(key, [0.0, 0])
            cell[0] += finite(_number(value), f"{name}[{key!r}]")
            cell[1] += 1
        return cells

    def _check_key(self, name: str, key: Any) -> None:
        known = self.keys
        if known is None:
            return
        if isinstance(known, int):
            inside, names = isinstance(key, int) and 0 <= key < known, f"0 to {known - 1}"
        else:
            inside, names = key in known, ", ".join(known)
        if not inside:
            raise PlanError("unknown", place=f"{name} of", value=key, remedy=f"Known: {names}")

    def decide(self, step: int) -> Any:
        """The decider's value for a step, from what it may know.

        Raises:
            PlanError: If an observation that it needs has not arrived.
        """
        needed = max(step - 1 - self.lag, -1)
        if needed < self._known:
            raise PlanError(
                f"the decision for step {step} was made when less was known",
                place="step",
                value=step,
                remedy="Load the state of that step to go back",
            )
        while self._known < needed:
            self._hear(self._known + 1, step)
        return self.decider.value(step)

    def _hear(self, step: int, deciding: int) -> None:
        if step not in self._heard:
            last = max(self._heard, default=self._known)
            raise PlanError(
                f"step {deciding} needs feedback of step {step}, last seen {last}",
                place="lag",
                value=self.lag,
                remedy=f"Raise lag to >= {max(deciding - 1 - last, self.lag + 1)}, or set "
                "num_workers=0; call observe after each step, also with nothing to report",
            )
        self.decider.observe(step, **{k: _told(v) for k, v in self._heard[step].items()})
        self._known = step
        self._after[step] = deepcopy(self.decider.state_dict())
        oldest = step - 2 * self.lag - 2
        for old in [s for s in self._after if s < oldest]:
            del self._after[old]
        for old in [s for s in self._heard if s <= oldest]:
            del self._heard[old]

    # State

    def state(self, step: int) -> dict[str, Any]:
        """What to save after ``step`` completed steps: re-drawing later ones repeats them."""
        # The decisions to come know at least this much, so that all ranks save the same.
        while self._known < step - 1 - self.lag and self._known + 1 in self._heard:
            self._hear(self._known + 1, step)
        base = max(min(step - 1 - self.lag, self._known), -1)
        if base not in self._after:
            raise PlanError(
                f"what was known at step {step} is no longer kept",
                place="step",
                value=step,
                remedy="Save at the current step",
            )
        later = {s: h for s, h in self._heard.items() if base < s < step}
        heard = [[s, {k: _written(v) for k, v in h.items()}] for s, h in sorted(later.items())]
        return {"known": base, "decider": deepcopy(self._after[base]), "heard": heard}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        if not isinstance(state, dict) or not {"known", "decider", "heard"} <= set(state):
            raise PlanError(
                "the state is not of an order that listens to the run", place="state", value=state
            )
        self._known = int(state["known"])
        self.decider.load_state_dict(deepcopy(state["decider"]))
        self._after = {self._known: deepcopy(state["decider"])}
        self._heard = {int(s): {k: _read(v) for k, v in h.items()} for s, h in state["heard"]}

    # Ranks

    def _gather(self, step: int, mine: dict[str, Any]) -> list[dict[str, Any]]:
        """What all ranks report, in the order of ranks."""
        distributed = sys.modules.get("torch.distributed")
        if not distributed or not distributed.is_available() or not distributed.is_initialized():
            return [mine]
        check = step % self.check_every == 0
        digest = ""
        if check:
            # The state that decides this step: ranks may have drawn further, or not so far.
            known = max(step - 1 - self.lag, -1)
            while self._known < known:
                self._hear(self._known + 1, step)
            digest = _digest(self._after[known])
        everyone: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(everyone, (step, digest, mine))
        if len({(s, d) for s, d, _ in everyone}) > 1:
            raise PlanError(
                f"ranks disagree about what was decided before step {step}",
                place="rank",
                value=[(s, d) for s, d, _ in everyone],
                remedy="Give all ranks the same plan, seed and state",
            )
        return [signals for _, _, signals in everyone]


def _digest(state: dict[str, Any]) -> str:
    text = json.dumps(state, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _add(whole: dict[str, Any], mine: dict[str, Any]) -> None:
    for name, cells in mine.items():
        if name not in whole:
            whole[name] = deepcopy(cells)
        elif isinstance(cells, dict):
            for key, (total, number) in cells.items():
                cell = whole[name].setdefault(key, [0.0, 0])
                cell[0] += total
                cell[1] += number
        else:
            whole[name][0] += cells[0]
            whole[name][1] += cells[1]


def _told(cells: Any) -> Any:
    """A signal as a decider hears it."""
    if not isinstance(cells, dict):
        return cells[0] / cells[1]
    keys = sorted(cells)
    return Tally(
        tuple(keys), tuple(cells[k][0] for k in keys), tuple(int(cells[k][1]) for k in keys)
    )


def _written(cells: Any) -> Any:
    """A signal as JSON holds it, in which keys of a mapping are always text."""
    return [[k, *cells[k]] for k in sorted(cells)] if isinstance(cells, dict) else list(cells)


def _read(plain: Any) -> Any:
    if plain and not isinstance(plain[0], list):
        return list(plain)
    return {key: [total, number] for key, total, number in plain}
