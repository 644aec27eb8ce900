"""Plans: every knob of one run, as data.

A plan names what changes while a model trains, each knob with a schedule (or a controller), and
says how long the run is. It reads and writes YAML 1.2, and can be extended or branched only where
its past stays what it was.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from trainplan.errors import PlanError, nearest
from trainplan.schedules import controllers, reading
from trainplan.schedules.base import RATES, Schedule
from trainplan.schedules.controllers import Controller
from trainplan.schedules.durations import UNITS, Duration, Span, parse_horizon
from trainplan.schedules.phases import Constant, Phase, Sequence, Take
from trainplan.schedules.values import level

Value = float | tuple[float, ...]
"""What a knob is set to: a number, or several (betas)."""
Knob = Schedule | tuple[Schedule, ...] | Controller
"""What drives a knob."""

FIELDS = ("name", "horizon", "unit", *RATES)
"""What a plan file holds beside knobs."""
_LARGEST_FILE = 4 * 1024 * 1024
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
        horizon: int | float | None = None,
        unit: str = "steps",
        name: str | None = None,
        *,
        steps_per_epoch: float | None = None,
        tokens_per_step: float | None = None,
        samples_per_step: float | None = None,
        **knobs: Any,
    ) -> None:
        if unit not in UNITS:
            raise PlanError("unknown unit", place="unit", value=unit, remedy=nearest(str(unit), UNITS))
        if name is not None and not isinstance(name, str):
            raise PlanError("a name must be text", place="name", value=name)
        self.horizon = None if horizon is None else parse_horizon(horizon)
        self.unit = unit
        self.name = name
        given = zip(RATES, (steps_per_epoch, tokens_per_step, samples_per_step), strict=True)
        self.rates: Mapping[str, float] = MappingProxyType(
            {rate: _rate(value, rate) for rate, value in given if value is not None}
        )
        if not knobs:
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
        return {name: _value(knob, t) for name, knob in self.ready.items()}

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
        return {name: knob for name, knob in self.knobs.items() if is_controller(knob)}  # type: ignore[misc]

    # Changing a plan

    def replace(self, **changes: Any) -> Plan:
        """A copy with some fields or knobs changed."""
        return Plan(**{**self._fields(), **self.knobs, **changes})

    def _fields(self) -> dict[str, Any]:
        given = {"horizon": self.horizon, "unit": self.unit, "name": self.name, **self.rates}
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
            raise PlanError("a plan without a horizon needs no extension", place="horizon", value=None)
        new_horizon = parse_horizon(horizon)
        self._check_inside(at)
        if new_horizon < at:
            raise PlanError(
                f"the new horizon lies before the {at:g} {self.unit} already done",
                place="horizon",
                value=horizon,
                remedy="Give a later one",
            )
        span = Span.of(old, self.unit, self.rates)
        frozen = {name: _map(knob, lambda s: s.freeze(at, span)) for name, knob in self.knobs.items()}
        new = self.replace(horizon=new_horizon, **frozen)
        self._check_past(new, at)
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
        start = _mark(at)
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
            after["lr"] = Phase(None, None, _duration(decay), shape)
            horizon = horizon or _plain_number(at) + span.measure(_duration(decay))
        futures = {
            name: self._future(name, knob, start, end) for name, knob in after.items()
        }
        kept = {
            name: _map(knob, lambda s: s.freeze(at, span)) if self.horizon else knob
            for name, knob in self.knobs.items()
            if name not in futures
        }
        new = self.replace(horizon=horizon or self.horizon, **{**kept, **futures})
        self._check_past(new, at)
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
        number = isinstance(at, Real) and not isinstance(at, bool)
        if not number or not 0 <= at <= (self.horizon or float("inf")):
            limit = "" if self.horizon is None else f" and at most {self.horizon:g}"
            raise PlanError(
                f"the time of the change must be a number not below 0{limit}", place="at", value=at
            )

    def _check_past(self, new: Plan, at: float) -> None:
        for name, knob in self.ready.items():
            others = new.ready.get(name)
            mine = knob if isinstance(knob, tuple) else (knob,)
            theirs = others if isinstance(others, tuple) else (others,)
            for before, after in zip(mine, theirs, strict=True):
                if isinstance(before, Schedule) and isinstance(after, Schedule):
                    _same_past(name, before, after, at, self.unit)

    # Reading and writing

    def to_dict(self) -> dict[str, Any]:
        """As plain data, as in a plan file."""
        return {**self._plain_fields(), **{name: _plain(knob) for name, knob in self.knobs.items()}}

    def _plain_fields(self) -> dict[str, Any]:
        fields = self._fields()
        return {key: fields[key] for key in FIELDS if key in fields and fields.get(key) != "steps"}

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
            return cls(**fields, **knobs)
        except PlanError as error:
            raise error.inside(prefix) from None

    def to_yaml(self) -> str:
        """The plan file."""
        from ruamel.yaml import YAML

        writer = YAML(typ="safe", pure=True)
        writer.default_flow_style = None
        writer.sort_base_mapping_type_on_output = False
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
        try:
            with file.open("rb") as stream:
                raw = stream.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise PlanError(f"cannot read the plan: {error.strerror}", place=str(path)) from None
        if len(raw) > _LARGEST_FILE:
            raise PlanError("larger than 4 MB: not a plan file", place=str(path))
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise PlanError(
                f"not UTF-8 text: {error.reason} at byte {error.start}", place=str(path)
            ) from None
        plan = cls.from_yaml(text, str(path))
        return plan if plan.name else plan.replace(name=file.stem)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a plan file; never half of one."""
        write_atomically(Path(path), self.to_yaml())

    @cached_property
    def digest(self) -> str:
        """A hash of what the plan means; its name does not count."""
        digests = {
            name: [item.digest for item in knob]
            if isinstance(knob, tuple)
            else knob.digest
            if isinstance(knob, Schedule)
            else knob.plain()
            for name, knob in self.knobs.items()
        }
        fields = {key: value for key, value in self._plain_fields().items() if key != "name"}
        text = json.dumps([fields, digests], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        mine, theirs = (self._fields(), dict(self.knobs)), (other._fields(), dict(other.knobs))
        return mine == theirs

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        items = {**self._fields(), **self.knobs}
        shown = ", ".join(f"{k}={v!r}" for k, v in items.items() if (k, v) != ("unit", "steps"))
        return f"Plan({shown})"


def read_knob(plain: Any, place: str) -> Knob:
    """What drives a knob, from Python objects or from a plan file's data.

    Args:
        plain: A schedule, a number, a controller, several schedules or numbers in a list, or a
            dictionary as in a plan file.
        place: Where it stands, for errors.
    """
    if isinstance(plain, Schedule) or is_controller(plain):
        return plain  # type: ignore[no-any-return]
    if isinstance(plain, (list, tuple)):
        if not plain:
            raise PlanError("an empty list", place=place, value=plain, remedy="Give numbers")
        return tuple(reading.parse(item, f"{place}[{i}]") for i, item in enumerate(plain))
    if isinstance(plain, dict) and len(plain) == 1:
        ((name, given),) = plain.items()
        if name in controllers.CONTROLLERS:
            args, kwargs = reading.arguments(given, f"{place}.{name}")
            try:
                return controllers.build(name, args, kwargs)
            except PlanError as error:
                raise error.inside(f"{place}.{name}") from None
            except TypeError as error:
                raise PlanError(str(error), place=f"{place}.{name}", value=given) from None
    return reading.parse(plain, place)


def is_controller(knob: Any) -> bool:
    """Whether something listens to the run."""
    return not isinstance(knob, (Schedule, type)) and isinstance(knob, Controller)


def read_yaml(text: str, source: str) -> Any:
    """Plain data from YAML 1.2, without tags, anchors and aliases."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.events import AliasEvent

    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 2)
    try:
        for event in reader.parse(io.StringIO(text)):
            tag = getattr(event, "tag", None)
            if isinstance(event, AliasEvent) or getattr(event, "anchor", None) or tag:
                line = event.start_mark.line + 1
                raise PlanError(
                    "tags, anchors and aliases are not allowed in a plan file",
                    place=f"{source}: line {line}",
                    remedy="Write the value out",
                )
        data = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}: line {mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise PlanError(f"not YAML: {problem}", place=where) from None
    except PlanError:
        raise
    except (ValueError, RecursionError) as error:
        raise PlanError(f"not YAML that can be read: {error}", place=source) from None
    if data is None:
        raise PlanError(
            "empty", place=source, remedy="Write lines like  lr: {cosine: {peak: 3e-4}}"
        )
    return data


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never half."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _value(knob: Knob, t: float) -> Value:
    if isinstance(knob, tuple):
        return tuple(item(t) for item in knob)
    return knob(t) if isinstance(knob, Schedule) else float(knob.value(t))


def _plain(knob: Knob) -> Any:
    return [item.plain() for item in knob] if isinstance(knob, tuple) else knob.plain()


def _map(knob: Knob, function: Callable[[Schedule], Schedule]) -> Knob:
    if isinstance(knob, tuple):
        return tuple(function(item) for item in knob)
    return function(knob) if isinstance(knob, Schedule) else knob


def _rate(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < float("inf"):
        raise PlanError("a rate must be a number above zero", place=name, value=value)
    return value if isinstance(value, int) else float(value)


def _duration(value: Any) -> Duration:
    try:
        return Duration.parse(value)
    except PlanError as error:
        raise error.inside("decay") from None


def _mark(at: float) -> Duration:
    return Duration.parse(at)


def _plain_number(at: float) -> float:
    return Duration.parse(at).amount


def _same_past(name: str, before: Schedule, after: Schedule, at: float, unit: str) -> None:
    """Compare two schedules bit by bit at every step before ``at`` (or at two million times)."""
    for times in _past(before, after, at, unit):
        old, new = before(times), after(times)
        wrong = np.flatnonzero(old != new)
        if wrong.size:
            i = int(wrong[0])
            raise PlanError(
                f"the past would change, first at {unit[:-1]} {times[i]:g}: it was {old[i]:.9g} and "
                f"would be {new[i]:.9g}",
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
