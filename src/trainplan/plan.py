"""Plans: every knob of one run, as data.

A plan names what changes while a model trains, each knob with a schedule (or a controller), and
says how long the run is. It reads and writes YAML 1.2, and can be extended or branched only where
its past stays what it was.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from trainplan.data_plan import DataPlan
from trainplan.errors import PlanError, located, nearest
from trainplan.files import read_text, read_yaml, write_atomically
from trainplan.knobs import (
    Knob,
    Value,
    is_controller,
    knob_digest,
    map_schedules,
    plain_knob,
    read_knob,
    value_at,
)
from trainplan.schedules.base import RATES, Schedule
from trainplan.schedules.controllers import Controller
from trainplan.schedules.durations import UNITS, Duration, Span, parse_horizon
from trainplan.schedules.phases import Phase, Sequence, Take
from trainplan.schedules.values import digest_of, is_number, level, rate

FIELDS = ("name", "horizon", "unit", *RATES, "data")
"""What a plan file holds beside knobs."""
_MOST_CHECKED = 2_000_000


class Plan(Mapping[str, Any]):
    """Every knob of one run.

    Args:
        horizon: Length of the run in ``unit``; None if no schedule needs it.
        unit: What ``t`` counts: ``steps``, ``tokens``, ``samples`` or ``epochs``.
        name: A name for tables and files.
        steps_per_epoch: Converts durations in epochs.
        tokens_per_step: Converts durations in tokens.
        samples_per_step: Converts durations in samples.
        data: What the model sees: a `DataPlan`, or a mapping as in a plan file.
        **knobs: By name (``lr``, ``weight_decay``, ``betas``, ``batch_size``, ``mask_rate``, or
            any other): a schedule, a number, several of either in a tuple, or a controller.

    A plan is a mapping from the knobs' names to what drives them, ready to be called:

    >>> import trainplan as tp
    >>> plan = tp.Plan(horizon=100, lr=tp.schedules.linear(0.1), weight_decay=0.01)
    >>> plan.at(50)
    {'lr': 0.05, 'weight_decay': 0.01}
    >>> plan["lr"](25)
    0.07500000000000001
    """

    def __init__(
        self,
        /,
        horizon: int | float | None = None,
        unit: str = "steps",
        name: str | None = None,
        *,
        steps_per_epoch: float | None = None,
        tokens_per_step: float | None = None,
        samples_per_step: float | None = None,
        data: Any = None,
        **knobs: Any,
    ) -> None:
        if unit not in UNITS:
            raise PlanError(
                "unknown unit", place="unit", value=unit, remedy=nearest(str(unit), UNITS)
            )
        if name is not None and not isinstance(name, str):
            raise PlanError("a name must be text", place="name", value=name)
        self.horizon = None if horizon is None else parse_horizon(horizon)
        self.unit = unit
        self.name = name
        given = zip(RATES, (steps_per_epoch, tokens_per_step, samples_per_step), strict=True)
        self.rates: Mapping[str, float] = MappingProxyType(
            {name: rate(value, name) for name, value in given if value is not None}
        )
        self.data = None if data is None else DataPlan.read(data)
        if not knobs and self.data is None:
            raise PlanError("a plan needs a knob", remedy="Give one, such as lr=3e-4")
        self.knobs: Mapping[str, Knob] = MappingProxyType(
            {key: read_knob(value, key) for key, value in knobs.items()}
        )

    # What to use when

    @cached_property
    def ready(self) -> Mapping[str, Knob]:
        """The knobs with every duration measured.

        Raises:
            PlanError: If one does not fit the horizon.
        """
        return MappingProxyType({name: self._resolve(name) for name in self.knobs})

    @cached_property
    def ready_data(self) -> DataPlan | None:
        """What the model sees, with every duration measured."""
        if self.data is None:
            return None
        try:
            return self.data.resolve(Span.of(self.horizon, self.unit, self.rates))
        except PlanError as error:
            raise error.inside("data") from None

    def _resolve(self, name: str) -> Knob:
        knob = self.knobs[name]
        try:
            if isinstance(knob, tuple):
                return tuple(self._fit(item) for item in knob)
            return self._fit(knob) if isinstance(knob, Schedule) else knob
        except PlanError as error:
            raise error.inside(name) from None

    def _fit(self, schedule: Schedule) -> Schedule:
        if self.horizon is not None:
            return schedule.resolve(self.horizon, unit=self.unit, **self.rates)
        _ = schedule.curve
        return schedule

    def at(self, t: float) -> dict[str, Value]:
        """The values for the update that has ``t`` completed units before it."""
        return {name: value_at(knob, t) for name, knob in self.ready.items()}

    def curve(self, name: str = "lr", points: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """One knob over the horizon.

        Args:
            name: The knob.
            points: How many times, evenly spaced; by default every step if there are at most a
                million, else a thousand.

        Returns:
            Times (n,) and values (n,), or (n, k) for a knob of k numbers.
        """
        knob = self[name]
        length = self.horizon
        if length is None:
            raise PlanError("the whole curve needs a horizon", place="horizon", value=None)
        if points is None and self.unit == "steps" and length <= 1e6:
            times = np.arange(int(length), dtype=np.float64)
        else:
            times = np.linspace(0, length, points or 1000, endpoint=points is None)
        if isinstance(knob, tuple):
            return times, np.stack([item(times) for item in knob], axis=1)
        if isinstance(knob, Schedule):
            return times, np.asarray(knob(times))
        raise PlanError(
            "the values of a controller are not known before the run", place=name, value=knob
        )

    def __getitem__(self, name: str) -> Any:
        if name not in self.knobs:
            raise KeyError(f"no knob {name!r} in this plan. {nearest(name, self.knobs)}")
        return self.ready[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.knobs)

    def __len__(self) -> int:
        return len(self.knobs)

    @property
    def controllers(self) -> dict[str, Controller]:
        """The knobs that listen."""
        return {name: knob for name, knob in self.knobs.items() if is_controller(knob)}

    # Changing a plan

    def replace(self, **changes: Any) -> Plan:
        """A copy with some fields or knobs changed."""
        return Plan(**{**self._fields(), **self.knobs, **changes})

    def _fields(self) -> dict[str, Any]:
        given: dict[str, Any] = {"name": self.name, "horizon": self.horizon, "unit": self.unit}
        given |= {**self.rates, "data": self.data}
        return {key: value for key, value in given.items() if value is not None}

    def extend(self, at: float, horizon: int | float) -> Plan:
        """The same plan for a longer run, decided after ``at`` completed units.

        Phases that have passed keep the lengths they had; later ones are measured again.

        Raises:
            PlanError: If a value before ``at`` would change, with the first such step and both
                values. A cosine, for one, cannot be extended.
        """
        old = self.horizon
        if old is None:
            raise PlanError(
                "a plan without a horizon needs no extension", place="horizon", value=None
            )
        self._check_inside(at)
        new_horizon = self._later(horizon, at)
        span = Span.of(old, self.unit, self.rates)
        frozen = {
            name: map_schedules(knob, lambda s: s.freeze(at, span))
            for name, knob in self.knobs.items()
        }
        data = self.data and self.data.map(lambda s: s.freeze(at, span))
        new = self.replace(horizon=new_horizon, data=data, **frozen)
        self.check_past(new, at)
        return new

    def branch(
        self,
        at: float,
        decay: Any = None,
        *,
        shape: Any = "1-sqrt",
        end: float | str = 0.0,
        horizon: int | float | None = None,
        **knobs: Any,
    ) -> Plan:
        """A plan with the same past and another future.

        Args:
            at: Completed units at which the branch begins.
            decay: Length of a decay of the learning rate that begins there; the horizon then
                becomes ``at`` plus its length, unless another is given.
            shape: Shape of the decay.
            end: Value at its end, or a percentage ("10%") of the value at its start.
            horizon: Length of the branched run, its past included.
            **knobs: Other knobs, or ``lr`` instead of ``decay``: schedules in the branch's own
                time, which starts at 0 when it begins.

        >>> import trainplan as tp
        >>> trunk = tp.Plan(horizon=100, lr=tp.schedules.constant(0.1, warmup=10))
        >>> short = trunk.branch(at=40, decay=20, shape="linear")
        >>> short.horizon, short["lr"]([39, 40, 50, 60]).tolist()
        (60, [0.1, 0.1, 0.05, 0.0])
        """
        self._check_inside(at)
        start = Duration.parse(at)
        length = None if horizon is None else self._later(horizon, at)
        span = Span.of(self.horizon, self.unit, self.rates)
        after = {name: read_knob(value, name) for name, value in knobs.items()}
        if decay is not None:
            if "lr" in after or not isinstance(self.knobs.get("lr"), Schedule):
                raise PlanError(
                    "decay applies to a knob lr that is a schedule, and not given twice",
                    place="decay",
                    value=decay,
                    remedy="Give the branched knobs by name",
                )
            lasts = located("decay", Duration.parse, decay)
            after["lr"] = Phase(None, None, lasts, shape)
            length = length or start.amount + located("decay", span.measure, lasts)
        futures = {name: self._future(name, knob, start, end) for name, knob in after.items()}
        kept = {
            name: map_schedules(knob, lambda s: s.freeze(at, span)) if self.horizon else knob
            for name, knob in self.knobs.items()
            if name not in futures
        }
        data = self.data
        if data is not None and self.horizon:
            data = data.map(lambda s: s.freeze(at, span))
        changed = {**kept, **futures}
        new = self.replace(horizon=length or self.horizon, data=data, **changed)
        self.check_past(new, at)
        return new

    def _future(self, name: str, after: Knob, at: Duration, end: float | str) -> Knob:
        """The past of a knob, then what the branch has for it."""
        if name not in self.knobs:
            return after
        before = self[name]
        if not isinstance(before, Schedule) or not isinstance(after, Schedule):
            raise PlanError(
                "only a knob that is one schedule can be branched", place=name, value=before
            )
        past = Take(before, at)
        if isinstance(after, Phase) and after.start is None:
            now = before(at.amount)
            return Sequence(past, Phase(now, level(end, now), after.duration, after.shape))
        return Sequence(past, Take(after))

    def _check_inside(self, at: float) -> None:
        if not is_number(at) or not 0 <= at <= (self.horizon or float("inf")):
            limit = "" if self.horizon is None else f" and at most {self.horizon:g}"
            raise PlanError(
                f"the time of the change must be a number not below 0{limit}", place="at", value=at
            )

    def _later(self, horizon: int | float, at: float) -> int | float:
        """Check the horizon of a run that has ``at`` units behind it."""
        number = parse_horizon(horizon)
        if number < at:
            raise PlanError(
                f"the new horizon lies before the {at:g} {self.unit} already done",
                place="horizon",
                value=horizon,
                remedy="Give a later one",
            )
        return number

    def check_past(self, new: Plan, at: float) -> None:
        """Refuse another plan for the rest of a run that has ``at`` units behind it.

        Raises:
            PlanError: If a schedule that both have differs before ``at``, with the first such
                time and both values.
        """
        for name, knob in self.ready.items():
            if name not in new.knobs:
                continue
            other = new.ready[name]
            mine = knob if isinstance(knob, tuple) else (knob,)
            theirs = other if isinstance(other, tuple) else (other,)
            if len(mine) != len(theirs):
                raise PlanError(
                    f"there were {len(mine)} numbers and would be {len(theirs)}", place=name
                )
            for before, after in zip(mine, theirs, strict=True):
                if isinstance(before, Schedule) and isinstance(after, Schedule):
                    _same_past(name, before, after, at, self.unit)
        if self.ready_data is not None and new.ready_data is not None:
            after_data = new.ready_data.schedules()
            for name, before in self.ready_data.schedules().items():
                if name in after_data:
                    _same_past(f"data.{name}", before, after_data[name], at, self.unit)

    # Reading and writing

    def to_dict(self) -> dict[str, Any]:
        """As plain data, as in a plan file."""
        return {
            **self._plain_fields(),
            **{name: plain_knob(knob) for name, knob in self.knobs.items()},
        }

    def _plain_fields(self) -> dict[str, Any]:
        """The fields as a plan file holds them, without the unit that goes without saying."""
        fields = {k: v for k, v in self._fields().items() if (k, v) != ("unit", "steps")}
        return fields if self.data is None else fields | {"data": self.data.plain()}

    @classmethod
    def from_dict(cls, plain: Any, source: str = "") -> Plan:
        """Read what `to_dict` wrote; errors name the place, after ``source``."""
        prefix = f"{source}: " if source else ""
        if not isinstance(plain, dict):
            raise PlanError(
                "a plan is a mapping of knobs",
                place=source,
                value=plain,
                remedy="Write lines like  lr: {cosine: {peak: 3e-4}}",
            )
        for key in plain:
            if not isinstance(key, str) or not key.isidentifier():
                raise PlanError("not a name for a knob", place=source, value=key)
        fields = {key: value for key, value in plain.items() if key in FIELDS}
        knobs = {k: read_knob(v, f"{prefix}{k}") for k, v in plain.items() if k not in FIELDS}
        try:
            return cls(**{**fields, **knobs})
        except PlanError as error:
            raise error.inside(prefix) from None

    def to_yaml(self) -> str:
        """The plan file."""
        from ruamel.yaml import YAML

        writer = YAML(typ="safe", pure=True)
        writer.default_flow_style = None
        writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
        writer.width = 96
        out = io.StringIO()
        writer.dump(self.to_dict(), out)
        return out.getvalue()

    @classmethod
    def from_yaml(cls, text: str, source: str = "plan") -> Plan:
        """Read a plan file's text (YAML 1.2, in which ``3e-4`` is a number).

        Raises:
            PlanError: With the place, if the text is not YAML or not a plan. Tags, anchors and
                aliases are refused: a plan needs none, and they can make a small file huge.
        """
        return cls.from_dict(read_yaml(text, source), source)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a plan file; without a name in it, the plan is called after the file."""
        file = Path(path)
        plan = cls.from_yaml(read_text(file), str(path))
        return plan if plan.name else plan.replace(name=file.stem)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a plan file; never half of one."""
        write_atomically(Path(path), self.to_yaml())

    @cached_property
    def digest(self) -> str:
        """A hash of what the plan means; its name does not count."""
        digests = {name: knob_digest(knob) for name, knob in self.knobs.items()}
        fields = {key: value for key, value in self._plain_fields().items() if key != "name"}
        if self.data is not None:
            fields["data"] = self.data.digest()
        return digest_of([fields, digests])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        mine, theirs = (self._fields(), dict(self.knobs)), (other._fields(), dict(other.knobs))
        return mine == theirs

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        items = {**self._plain_fields(), **self.knobs}
        shown = ", ".join(f"{k}={v!r}" for k, v in items.items())
        return f"Plan({shown})"


def _same_past(name: str, before: Schedule, after: Schedule, at: float, unit: str) -> None:
    """Compare two schedules bit by bit at every step before ``at`` (or at two million times)."""
    for times in _past(before, after, at, unit):
        old, new = before(times), after(times)
        wrong = np.flatnonzero(old != new)
        if wrong.size:
            i = int(wrong[0])
            raise PlanError(
                f"the past would change, first at {unit[:-1]} {times[i]:g}: it was {old[i]:.9g} "
                f"and would be {new[i]:.9g}",
                place=name,
                remedy="A schedule whose shape depends on the horizon (cosine, linear, a decay "
                "under way) cannot be stretched. Branch instead: branch(at, decay=...) for a new "
                "decay from here, or branch(at, lr=...) with a schedule that warms up again",
            )


def _past(before: Schedule, after: Schedule, at: float, unit: str) -> Iterator[np.ndarray]:
    if unit == "steps" and at <= _MOST_CHECKED:
        yield np.arange(np.ceil(at))
        return
    marks = {b for s in (before, after) for b in s.curve.bounds() if b < at}
    near = sorted(x for b in marks for x in (b - 1, b, b + 1) if 0 <= x < at)
    yield np.unique(np.concatenate([near, np.linspace(0, at, 100_000, endpoint=False)]))
