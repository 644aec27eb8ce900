"""The part of a plan that says what the model sees: difficulty and pacing, mixtures, shapes.

    data:
      difficulty: {column: length}
      pacing: {root: {start: 10%, full_at: 50%}}
      mixture: {web: {linear: [1.0, 0.7]}, math: 0.3}
      shape: {length: {linear: [512, 4096]}}

It holds names and schedules only; `trainplan.data.from_plan` makes the order of a data set of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from trainplan.errors import PlanError, located, nearest
from trainplan.schedules import reading
from trainplan.schedules.base import Schedule
from trainplan.schedules.durations import Span
from trainplan.schedules.pacings import PACINGS, pacing
from trainplan.schedules.values import count

BY: Final = ("fraction", "value")
WITHIN: Final = ("pass", "draw", "sorted")
ROUND: Final = ("nearest",)
POLICIES: Final = ("repeat", "stop", "cover", "drop", "error")
DIFFICULTY: Final = ("column", "file")
_PACING: Final = {"start", "full_at", "end", "power", "steps", "multiplier"}


@dataclass(frozen=True)
class DataPlan:
    """What the model sees over a run.

    Attributes:
        difficulty: Where the difficulty of an example stands: ``{"column": name}`` of the data
            set (a column of texts or lists counts by length), or ``{"file": path}`` of a NumPy
            file.
        pacing: Schedule of the open share of the data (or of the highest open difficulty).
        by: What the pacing means, ``fraction`` or ``value``.
        within: Which open example comes next: ``pass``, ``draw`` or ``sorted``.
        hardest_first: Turn the ranking round.
        mixture: Weight of each data set, schedules by name.
        exhausted: What to do when a data set of the mixture has been seen, for all or by name.
        max_epochs: Repeats of a data set, for all or by name.
        shape: What changes in the shape of examples (``crop``, ``length``), schedules by name.
        shape_multiple: To the nearest multiple of what shapes are rounded, for all or by name.
        global_batch: Schedule of the examples of a step, in a plan that counts steps.
        batch_multiple: Of what these are multiples: ranks * accumulation.
        round: ``nearest`` rounds them to that; None takes other numbers for mistakes.
        seed: Of everything random.
    """

    difficulty: Mapping[str, str] | None = None
    pacing: Schedule | None = None
    by: str = "fraction"
    within: str = "pass"
    hardest_first: bool = False
    mixture: Mapping[str, Schedule] | None = None
    exhausted: str | Mapping[str, str] = "repeat"
    max_epochs: int | Mapping[str, int] | None = None
    shape: Mapping[str, Schedule] | None = None
    shape_multiple: int | Mapping[str, int] = 1
    global_batch: Schedule | None = None
    batch_multiple: int = 1
    round: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("difficulty", "mixture", "shape"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, MappingProxyType(dict(value)))
        _one_of(self.by, BY, "by")
        _one_of(self.within, WITHIN, "within")
        if not isinstance(self.hardest_first, bool):
            raise PlanError(
                "neither true nor false", place="hardest_first", value=self.hardest_first
            )
        object.__setattr__(self, "seed", count(self.seed, "seed", least=0))
        for name, policy in _by_name(self.exhausted, "exhausted"):
            _one_of(policy, POLICIES, name)
        for name, number in (
            *_by_name(self.max_epochs, "max_epochs"),
            *_by_name(self.shape_multiple, "shape_multiple"),
            ("batch_multiple", self.batch_multiple),
        ):
            count(number, name)
        if self.round is not None:
            _one_of(self.round, ROUND, "round")
        self._check_together()

    def _check_together(self) -> None:
        if self.difficulty is None and self.pacing is not None:
            raise PlanError(
                "a pacing needs a difficulty",
                place="pacing",
                value=self.pacing,
                remedy="Write difficulty: {column: ...}",
            )
        ordered = self.difficulty is not None or self.mixture is not None
        if not ordered and self.shape is None and self.global_batch is None:
            raise PlanError(
                "says nothing",
                place="data",
                value={},
                remedy="Give difficulty, mixture, shape or global_batch",
            )
        if ordered and self.global_batch is not None:
            raise PlanError(
                "a plan changes it for shuffled data only",
                place="global_batch",
                value=self.global_batch,
                remedy="Wrap the order of your data: trainplan.data.VariedBatches(source, sizes)",
            )
        if isinstance(self.shape_multiple, Mapping):
            for name in self.shape_multiple:
                _one_of(name, tuple(self.shape or ()), "shape_multiple")
        if self.difficulty is not None and (self.pacing is None) != (self.within == "sorted"):
            what = "needs" if self.pacing is None else "takes no"
            raise PlanError(
                f"within: {self.within} {what} pacing",
                place="pacing",
                value=self.pacing,
                remedy="Write pacing: {root: {start: 10%, full_at: 50%}}, or within: sorted",
            )

    @classmethod
    def read(cls, plain: Any, place: str = "data") -> DataPlan:
        """From Python objects, or from a plan file's data."""
        if isinstance(plain, DataPlan):
            return plain
        if not isinstance(plain, Mapping):
            raise PlanError("must be a mapping", place=place, value=plain, remedy=_HOW)
        names = [field.name for field in fields(cls)]
        for key in plain:
            if key not in names:
                raise PlanError(
                    "unknown", place=f"{place}.{key}", value=plain[key], remedy=nearest(key, names)
                )
        given = dict(plain)
        if given.get("difficulty") is not None:
            given["difficulty"] = _difficulty(given["difficulty"], f"{place}.difficulty")
        if given.get("pacing") is not None:
            given["pacing"] = read_pacing(given["pacing"], f"{place}.pacing")
        if given.get("mixture") is not None:
            given["mixture"] = _named(given["mixture"], f"{place}.mixture", "{web: 0.7, math: 0.3}")
        if given.get("shape") is not None:
            how = "{length: {linear: [512, 4096]}}"
            given["shape"] = _named(given["shape"], f"{place}.shape", how)
        if given.get("global_batch") is not None:
            given["global_batch"] = reading.parse(given["global_batch"], f"{place}.global_batch")
        try:
            return cls(**given)
        except PlanError as error:
            raise error.inside(place) if error.place != place else error from None

    def plain(self) -> dict[str, Any]:
        """As a plan file holds it."""
        told: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            if isinstance(value, Schedule):
                value = value.plain()
            elif isinstance(value, Mapping):
                value = {k: v.plain() if isinstance(v, Schedule) else v for k, v in value.items()}
            told[field.name] = value
        return told

    def digest(self) -> Any:
        """What stands for it in the digest of a plan."""
        told = self.plain()
        if self.pacing is not None:
            told["pacing"] = self.pacing.digest
        if self.global_batch is not None:
            told["global_batch"] = self.global_batch.digest
        for part in ("mixture", "shape"):
            if part in told:
                told[part] = {name: s.digest for name, s in getattr(self, part).items()}
        return told

    def schedules(self) -> dict[str, Schedule]:
        """Every schedule in it, by its place."""
        alone = {"pacing": self.pacing, "global_batch": self.global_batch}
        found = {name: schedule for name, schedule in alone.items() if schedule is not None}
        found |= {f"mixture.{name}": s for name, s in (self.mixture or {}).items()}
        return found | {f"shape.{name}": s for name, s in (self.shape or {}).items()}

    def map(self, function: Callable[[Schedule], Schedule]) -> DataPlan:
        """A copy with a function applied to each schedule."""
        new = {name: located(name, function, s) for name, s in self.schedules().items()}
        mixture = self.mixture and {name: new[f"mixture.{name}"] for name in self.mixture}
        shape = self.shape and {name: new[f"shape.{name}"] for name in self.shape}
        batch = new.get("global_batch")
        return replace(
            self, pacing=new.get("pacing"), mixture=mixture, shape=shape, global_batch=batch
        )

    def resolve(self, span: Span) -> DataPlan:
        """With every duration measured."""
        if span.length is None:
            for name, schedule in self.schedules().items():
                located(name, schedule.compile, span)
            return self
        horizon, rates = span.length, dict(span.rates)
        return self.map(lambda s: s.resolve(horizon, unit=span.unit, **rates))

    def shares(self, times: np.ndarray) -> dict[str, np.ndarray]:
        """Share of each data set at times (t,), normalised; for a resolved plan."""
        if self.mixture is None:
            return {}
        weights = {name: np.asarray(s(times), dtype=float) for name, s in self.mixture.items()}
        whole = sum(weights.values())
        return {name: weight / np.where(whole > 0, whole, 1.0) for name, weight in weights.items()}

    def open_share(self, times: np.ndarray) -> np.ndarray | None:
        """Open share of the data at times (t,); None if that depends on the difficulties."""
        if self.pacing is None or self.by != "fraction":
            return None
        opened: np.ndarray = np.clip(np.asarray(self.pacing(times), dtype=float), 0.0, 1.0)
        return opened

    def sizes(self, times: np.ndarray) -> dict[str, np.ndarray]:
        """Shapes and batch size at times (t,), rounded; for a resolved plan."""
        rows = [(f"shape {name}", s, self.multiple_of(name)) for name, s in self._shape()]
        if self.global_batch is not None:
            rows.append(("global batch", self.global_batch, self._rounded_to))
        return {name: _multiples(schedule, of, times) for name, schedule, of in rows}

    def multiple_of(self, name: str) -> int:
        """To multiples of what a part of the shape is rounded."""
        given = self.shape_multiple
        return given.get(name, 1) if isinstance(given, Mapping) else given

    @property
    def _rounded_to(self) -> int:
        return 0 if self.round is None else self.batch_multiple

    def _shape(self) -> list[tuple[str, Schedule]]:
        return list((self.shape or {}).items())


def _multiples(schedule: Schedule, of: int, times: np.ndarray) -> np.ndarray:
    """Values at some times, rounded to multiples; not if that is 0."""
    values: np.ndarray = np.asarray(schedule(times), dtype=float)
    return np.floor(values / of + 0.5) * of if of else values


_HOW = "Write  data: {difficulty: {column: length}, pacing: {root: {start: 10%, full_at: 50%}}}"


def read_pacing(plain: Any, place: str) -> Schedule:
    """A pacing by name and arguments, such as ``{root: {start: 10%}}``; or any schedule."""
    if isinstance(plain, str) and plain in PACINGS:
        plain = {plain: {}}
    if isinstance(plain, dict) and len(plain) == 1:
        ((name, given),) = plain.items()
        arguments = {} if given is None else given
        if name in PACINGS and isinstance(arguments, dict) and set(arguments) <= _PACING:
            try:
                return pacing(name, **arguments)
            except PlanError as error:
                raise error.inside(f"{place}.{name}") from None
    return reading.parse(plain, place)


def _difficulty(plain: Any, place: str) -> dict[str, str]:
    if isinstance(plain, str):
        return {"column": plain}
    good = isinstance(plain, Mapping) and len(plain) == 1 and next(iter(plain)) in DIFFICULTY
    if not good or not isinstance(next(iter(plain.values())), str):
        raise PlanError(
            "not a difficulty",
            place=place,
            value=plain,
            remedy="Write {column: NAME} or {file: PATH}",
        )
    return dict(plain)


def _named(plain: Any, place: str, how: str) -> dict[str, Schedule]:
    if not isinstance(plain, Mapping) or not plain:
        raise PlanError("not schedules by name", place=place, value=plain, remedy=f"Write {how}")
    return {str(name): reading.parse(value, f"{place}.{name}") for name, value in plain.items()}


def _by_name(value: Any, place: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(f"{place}.{name}", item) for name, item in value.items()]
    return [] if value is None else [(place, value)]


def _one_of(value: Any, known: tuple[str, ...], place: str) -> None:
    if value not in known:
        raise PlanError("unknown", place=place, value=value, remedy=nearest(str(value), known))
