"""AutoLRS: search the learning rate anew in every stage of training.

Jin, Zhou, Zhao, Zhu, Guo, Canini and Krishnamurthy, 2021, "AutoLRS: Automatic Learning-Rate
Schedule by Bayesian Optimization on the Fly", arXiv 2105.10762. A stage saves the training state,
tries ten rates for a tenth of its length each, forecasts what each would come to by its end,
goes back to the saved state and trains on with the best. Stages double in length. The search costs
about as many steps as the training itself: compare with `Cost` at hand.

`AutoLRS` is a controller that asks three things of the loop it runs in: to save its state, to go
back to it, and to measure a validation loss. `train_with_search` is such a loop around four
functions of yours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from trainplan.errors import PlanError, nearest
from trainplan.schedules.base import Schedule
from trainplan.schedules.controllers import register_controller
from trainplan.schedules.durations import Duration
from trainplan.schedules.forecast import Forecasting, foresee
from trainplan.schedules.phases import Hold, Phase
from trainplan.schedules.phases import Sequence as Phases
from trainplan.schedules.rate_search import Search, check_range, next_rate
from trainplan.schedules.stages import Cost, Stage, cost_of_stages, stage_table, stages_within
from trainplan.schedules.values import count, finite

_CHOICES = {"forecast": ("exponential", "released", "last"), "search": ("gp", "grid")}
_SHORTEST_TRIAL = 3


@dataclass
class AutoLRS:
    """The learning rate of each stage, found by short trials.

    Args:
        lowest: Smallest rate that is tried, above 0.
        highest: Largest rate that is tried.
        steps: Steps of the training itself, warm-up included and trials not; the last stage is
            cut to fit, its trials with it. None goes on for ever.
        trials: Rates per stage.
        trial_steps: Steps of one trial in the first stage (tau').
        stage_steps: Steps of the first stage (tau).
        longest_stage: Stages double until their trials have a tenth of this; from the next stage
            on validation losses are forecast, if there is a way to measure them.
        warmup: Steps of a linear rise to ``warmup_peak`` before the first stage.
        warmup_peak: Rate at the end of the warm-up.
        forecast: ``"exponential"`` (fits the losses), ``"released"`` (as the authors' program
            does) or ``"last"`` (the mean of the last ten: no forecast).
        search: ``"gp"`` (Bayesian optimization) or ``"grid"``.
        kappa: How far the search spreads out; see `next_rate`.
        seed: Of the first rate of each stage.
        signal: The name under which the loop reports its training loss.

    Use it in a loop of your own through `train_with_search`, or attached:

        lr = tp.schedules.AutoLRS(1e-3, 1.0, steps=10_000)
        run = tp.torch.attach(tp.Plan(lr=lr), optimizer)
        lr.connect(save=save, restore=restore, validate=validate)
        while not lr.finished:
            ...                              # one optimizer step
            run.observe(loss=loss.item())    # may call save, restore and validate

    ``observe`` must hear the training loss of every step once, after the update. ``save`` keeps,
    and ``restore`` brings back, everything that training changes: model, optimizer, data position,
    random state, and ``run.clock`` if other knobs follow a schedule; never this controller. A
    checkpoint holds the present state, the kept state, and ``state_dict()``.

    >>> lr = AutoLRS(0.01, 1.0, steps=40, trials=3, trial_steps=5, stage_steps=20, search="grid")
    >>> lr.planned_cost()
    Cost(exploited=40, searched=30)
    """

    lowest: float
    highest: float
    steps: int | None = None
    trials: int = 10
    trial_steps: int = 100
    stage_steps: int = 1000
    longest_stage: int = 8000
    warmup: int = 0
    warmup_peak: float | None = None
    forecast: Forecasting = "exponential"
    search: Search = "gp"
    kappa: float = 1000.0
    seed: int = 0
    signal: str = "loss"
    _state: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _links: _Links | None = field(default=None, init=False, repr=False, compare=False)
    _stage: Stage | None = field(default=None, init=False, repr=False, compare=False)

    name: ClassVar[str] = "autolrs"

    def __post_init__(self) -> None:
        for name in ("lowest", "highest", "kappa"):
            setattr(self, name, finite(getattr(self, name), name))
        for name, least in _LEAST.items():
            setattr(self, name, count(getattr(self, name), name, least=least))
        if self.steps is not None:
            self.steps = count(self.steps, "steps")
        check_range(self.lowest, self.highest)
        self._check_lengths()
        for name, known in _CHOICES.items():
            given = getattr(self, name)
            if given not in known:
                remedy = nearest(str(given), known)
                raise PlanError("unknown choice", place=name, value=given, remedy=remedy)
        self._state = {
            "phase": "start",
            "stage": 0,
            "done": 0,
            "rate": 0.0,
            "tried": [],
            "forecasts": [],
            "losses": [],
            "first_loss": None,
            "exploited": 0,
            "searched": 0,
            "chosen": [],
        }
        self._state["rate"] = self._warm_rate() if self.warmup else self._propose()

    def _check_lengths(self) -> None:
        if self.stage_steps < self.trial_steps:
            raise PlanError(
                f"a stage is shorter than one of its trials ({self.trial_steps} steps)",
                place="stage_steps",
                value=self.stage_steps,
                remedy=f"Write {10 * self.trial_steps}, say",
            )
        if self.warmup and self.warmup_peak is None:
            raise PlanError("a warm-up needs the rate that it rises to", place="warmup_peak")
        if self.warmup_peak is not None and finite(self.warmup_peak, "warmup_peak") <= 0:
            raise PlanError("not above zero", place="warmup_peak", value=self.warmup_peak)
        if self.steps is not None and self.steps - self.warmup < _SHORTEST_TRIAL:
            raise PlanError(
                f"the warm-up of {self.warmup} steps leaves nothing to search",
                place="steps",
                value=self.steps,
                remedy="Train longer, or warm up for less",
            )

    # What the loop sees

    def connect(
        self,
        *,
        save: Callable[[], object],
        restore: Callable[[], object],
        validate: Callable[[], float] | None = None,
    ) -> None:
        """Say how the state of training is kept, and begin (or go on from a loaded state).

        Args:
            save: Keeps the state of training, in place of one kept before.
            restore: Brings the kept state back; it may be called many times for one ``save``.
            validate: Measures a validation loss. Without it, late stages forecast training losses.
        """
        self._links = _Links(save, restore, validate)
        if self._state["phase"] == "start":
            self._state["phase"] = "warmup"
            if not self.warmup:
                self._begin_stage()

    def value(self, t: float) -> float:
        """The rate of the next step; it counts steps itself and does not depend on ``t``."""
        return float(self._state["rate"])

    @property
    def due(self) -> int:
        """Steps to train at the present rate before anything else happens; 0 when finished."""
        phase, done = self._state["phase"], int(self._state["done"])
        if phase == "finished":
            return 0
        if phase in {"start", "warmup"}:
            return 1
        stage = self.stage
        if phase == "stage":
            return stage.steps - done
        left = stage.trial_steps - done
        every = self._validates_every()
        return min(left, every - done % every) if every else left

    @property
    def finished(self) -> bool:
        """Whether all ``steps`` are trained."""
        return bool(self._state["phase"] == "finished")

    @property
    def searching(self) -> bool:
        """Whether the next step belongs to a trial, which will be undone."""
        return bool(self._state["phase"] == "trial")

    @property
    def stage(self) -> Stage:
        """The present stage."""
        # Asked for at every step, so it is looked up once per stage.
        if self._stage is None or self._stage.index != self._state["stage"]:
            self._stage = self._look_up_stage(self._state["stage"])
        return self._stage

    @property
    def cost(self) -> Cost:
        """Steps trained so far, and steps spent on trials."""
        return Cost(self._state["exploited"], self._state["searched"])

    @property
    def chosen(self) -> list[tuple[float, int]]:
        """Rate and steps of each stage that is complete."""
        return [(float(rate), int(steps)) for rate, steps in self._state["chosen"]]

    def found(self) -> Schedule:
        """The schedule that was found, for runs that need no search.

        Raises:
            PlanError: If no stage is complete.
        """
        if not self.chosen:
            raise PlanError("no stage is complete yet", place="autolrs")
        pieces: list[Phase | Hold] = [Hold(rate, Duration(steps)) for rate, steps in self.chosen]
        if self.warmup and self.warmup_peak is not None:
            step = self.warmup_peak / self.warmup
            pieces.insert(0, Phase(step, self.warmup_peak + step, Duration(self.warmup)))
        return Phases(*pieces)

    def planned_cost(self, steps: int | None = None) -> Cost:
        """What a training of so many steps (by default ``self.steps``) costs with its search."""
        steps = self.steps if steps is None else count(steps, "steps")
        if steps is None:
            raise PlanError("without an end there is no cost", place="steps", value=None)
        stages = stages_within(max(steps - self.warmup, 0), **self._table())
        return cost_of_stages(stages, self.trials) + Cost(min(self.warmup, steps), 0)

    def steps_within(self, total: int) -> int:
        """The longest training whose cost, search included, is at most ``total`` steps.

        >>> AutoLRS(0.01, 1.0, trial_steps=10, stage_steps=100).steps_within(400)
        200
        """
        low, high = 0, count(total, "total")
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.planned_cost(middle).total <= total
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    # What the loop reports

    def observe(self, t: float, **signals: float) -> None:
        """Hear the training loss of one step, and do what follows from it.

        Raises:
            PlanError: If `connect` was not called, or every rate of the stage diverged.
        """
        if self.signal not in signals or self.finished:
            return
        loss, state = float(signals[self.signal]), self._state
        if self._links is None or state["phase"] == "start":
            raise PlanError(
                "the search does not know how to save and restore the training",
                place="autolrs",
                remedy="Call connect(save=..., restore=...) before the first step",
            )
        if state["first_loss"] is None and math.isfinite(loss):
            state["first_loss"] = loss
        state["done"] += 1
        if state["phase"] == "trial":
            state["searched"] += 1
            self._observe_trial(loss)
        else:
            state["exploited"] += 1
            self._observe_training(loss)

    def _observe_trial(self, loss: float) -> None:
        state, stage, every = self._state, self.stage, self._validates_every()
        if every and math.isfinite(loss):
            if state["done"] % every == 0:
                loss = self._measure()
                state["losses"].append(loss)
        else:
            state["losses"].append(loss)
        if not math.isfinite(loss):
            self._end_trial(None)
        elif state["done"] == stage.trial_steps:
            self._end_trial(self._foresee())

    def _end_trial(self, value: float | None) -> None:
        state = self._state
        state["tried"].append(state["rate"])
        state["forecasts"].append(value)
        if len(state["tried"]) < self.trials:
            self._restart("trial", self._propose())
        else:
            self._exploit_best()

    def _observe_training(self, loss: float) -> None:
        state = self._state
        if state["phase"] == "warmup":
            if state["done"] == self.warmup:
                self._begin_stage()
            else:
                state["rate"] = self._warm_rate()
        elif not math.isfinite(loss):
            self._give_up_rate()
        elif state["done"] == self.stage.steps:
            state["chosen"].append([state["rate"], state["done"]])
            state["stage"] += 1
            self._begin_stage()

    def _give_up_rate(self) -> None:
        """A stage that diverges is undone and trained with the next best rate."""
        state = self._state
        state["exploited"] -= state["done"]
        state["searched"] += state["done"]
        state["forecasts"][state["tried"].index(state["rate"])] = None
        self._exploit_best()

    def _begin_stage(self) -> None:
        state = self._state
        if self.steps is not None and state["exploited"] >= self.steps:
            state.update(phase="finished", done=0)
            return
        self._connected().save()
        state.update(phase="trial", done=0, tried=[], forecasts=[], losses=[])
        state["rate"] = self._propose()

    def _exploit_best(self) -> None:
        known = [
            (value, rate)
            for value, rate in zip(self._state["forecasts"], self._state["tried"], strict=True)
            if value is not None
        ]
        if not known:
            raise PlanError(
                f"every rate of stage {self._state['stage']} diverged",
                place="highest",
                value=self.highest,
                remedy="Lower it, and `lowest` with it",
            )
        self._restart("stage", min(known)[1])

    def _restart(self, phase: str, rate: float) -> None:
        self._connected().restore()
        self._state.update(phase=phase, done=0, losses=[], rate=rate)

    def _foresee(self) -> float:
        """What the trial's losses come to at the end of the stage."""
        stage, every, losses = self.stage, self._validates_every(), self._state["losses"]
        first = self._state["first_loss"]
        if every and first is not None and max(losses) >= first:
            return float(losses[-1])
        # The horizon counts losses, of which there may be fewer than steps.
        horizon = stage.steps // (every or 1)
        return foresee(losses, horizon, self.forecast, training=not every)

    def _validates_every(self) -> int:
        """Steps between two validation losses in the present trials; 0 for training losses."""
        stage = self.stage
        validates = stage.validates and self._links is not None and self._links.validate
        return max(1, stage.validate_every) if validates else 0

    def _measure(self) -> float:
        validate = self._connected().validate
        return math.nan if validate is None else float(validate())

    def _propose(self) -> float:
        state = self._state
        return next_rate(
            self.lowest,
            self.highest,
            state["tried"],
            state["forecasts"],
            trials=self.trials,
            search=self.search,
            kappa=self.kappa,
            seed=(self.seed, state["stage"]),
        )

    def _warm_rate(self) -> float:
        done = int(self._state["done"])
        return (self.warmup_peak or 0.0) * (done + 1) / self.warmup

    def _look_up_stage(self, index: int) -> Stage:
        if self.steps is None:
            return stage_table(index + 1, **self._table())[index]
        stages = stages_within(self.steps - self.warmup, **self._table())
        return stages[min(index, len(stages) - 1)]

    def _table(self) -> dict[str, int]:
        names = ("trial_steps", "stage_steps", "longest_stage")
        return {name: getattr(self, name) for name in names}

    def _connected(self) -> _Links:
        if self._links is None:
            raise PlanError("not connected", place="autolrs", remedy="Call connect(...) first")
        return self._links

    # State and settings

    def state_dict(self) -> dict[str, Any]:
        """Where the search is and what it has seen, as plain numbers, text and lists."""
        copied = {key: list(v) if isinstance(v, list) else v for key, v in self._state.items()}
        copied["chosen"] = [list(pair) for pair in self._state["chosen"]]
        return copied

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`; the loop restores its own states, the kept one included.

        Raises:
            PlanError: If the state is not one of this controller.
        """
        if set(state) != set(self._state) or state["phase"] not in _PHASES:
            raise PlanError("not a state of AutoLRS", place="state", value=sorted(state))
        self._state = dict(state)
        self._state = self.state_dict()
        self._stage = None

    def plain(self) -> Any:
        """The settings that differ from the defaults."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        defaults = {f.name: f.default for f in fields(self)}
        return {self.name: {k: v for k, v in given.items() if v != defaults[k]}}


@dataclass(frozen=True)
class _Links:
    save: Callable[[], object]
    restore: Callable[[], object]
    validate: Callable[[], float] | None


_PHASES = ("start", "warmup", "trial", "stage", "finished")
_LEAST = {
    "trials": 1,
    "trial_steps": _SHORTEST_TRIAL,
    "stage_steps": _SHORTEST_TRIAL,
    "longest_stage": 1,
    "warmup": 0,
    "seed": 0,
}


register_controller(AutoLRS.name, AutoLRS)
