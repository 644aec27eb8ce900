"""The JSON Schema of plan files, made from the signatures that also check them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from trainplan.data_plan import BY, DIFFICULTY, POLICIES, ROUND, WITHIN
from trainplan.plan import FIELDS
from trainplan.schedules import controllers
from trainplan.schedules.base import RATES
from trainplan.schedules.durations import UNITS
from trainplan.schedules.pacings import PACINGS
from trainplan.schedules.registry import REGISTRY, Entry
from trainplan.schedules.shapes import SHAPES, Shape

_REF = "#/$defs/"
_NUMBER = {"type": "number"}


def plan_schema() -> dict[str, Any]:
    """The schema of plan files (JSON Schema 2020-12).

    It describes form, not sense: a plan that fits may still be refused, with a better message, or
    be warned about by `trainplan.check`.

    >>> sorted(plan_schema()["properties"])[:3]
    ['data', 'horizon', 'name']
    """
    properties: dict[str, Any] = {
        "name": {"type": "string", "description": "A name for tables and files."},
        "horizon": {"type": "number", "exclusiveMinimum": 0, "description": "Length of the run."},
        "unit": {"enum": list(UNITS), "description": "What time counts; steps by default."},
        "data": _data(),
    }
    for field in FIELDS:
        properties.setdefault(field, {"type": "number", "exclusiveMinimum": 0})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "trainplan plan",
        "description": "Every knob of one training run: its name, and what drives it.",
        "type": "object",
        "properties": properties,
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "additionalProperties": {"$ref": _REF + "knob"},
        "$defs": _definitions(),
    }


def _definitions() -> dict[str, Any]:
    schedule = [{"type": "number"}, *(_one_key(name, _arguments(e)) for name, e in _entries())]
    schedule += [
        _one_key("phases", {"type": "array", "minItems": 1, "items": {"$ref": _REF + "phase"}}),
        _one_key("resolve", _resolved()),
        *_lone_phases(),
    ]
    pair = {"type": "array", "items": {"$ref": _REF + "schedule"}, "minItems": 2, "maxItems": 2}
    schedule += [_one_key("sum", pair), _one_key("product", pair)]
    listening = [
        _one_key(name, _arguments(Entry(name, cls, inspect.signature(cls))))
        for name, cls in sorted(controllers.CONTROLLERS.items())
    ]
    several = {"type": "array", "items": {"$ref": _REF + "schedule"}, "minItems": 1}
    return {
        "knob": {"anyOf": [{"$ref": _REF + "schedule"}, several, *listening]},
        "schedule": {"anyOf": schedule},
        "phase": _phase(),
        "duration": {
            "description": "A number in the plan's unit, a percentage, or an amount: '2B tokens'.",
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}],
        },
        "level": {
            "description": "A value, or a percentage of the peak: '10%'.",
            "anyOf": [{"type": "number"}, {"type": "string", "pattern": "%\\s*$"}],
        },
        "shape": _shapes(),
    }


def _data() -> dict[str, Any]:
    """What the model sees."""
    schedule = {"$ref": _REF + "schedule"}
    share = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "%\\s*$"}]}
    arguments = {"start": share, "end": share, "full_at": {"$ref": _REF + "duration"}}
    steps = {"type": "integer", "minimum": 2}
    named = _closed(arguments | {"power": _NUMBER, "steps": steps, "multiplier": _NUMBER})
    pacing = [
        {"enum": list(PACINGS)},
        *(_one_key(name, {"anyOf": [named, {"type": "null"}]}) for name in PACINGS),
        schedule,
    ]
    policy = {"enum": list(POLICIES)}
    repeats = {"type": "integer", "minimum": 1}
    schedules = {"type": "object", "minProperties": 1, "additionalProperties": schedule}
    return {
        "description": "What the model sees: difficulty and pacing, mixtures of data sets, shapes.",
        **_closed(
            {
                "difficulty": {
                    "anyOf": [
                        {"type": "string"},
                        *(_one_key(name, {"type": "string"}) for name in DIFFICULTY),
                    ]
                },
                "pacing": {"anyOf": pacing},
                "by": {"enum": list(BY)},
                "within": {"enum": list(WITHIN)},
                "hardest_first": {"type": "boolean"},
                "mixture": schedules,
                "exhausted": {
                    "anyOf": [policy, {"type": "object", "additionalProperties": policy}]
                },
                "max_epochs": {
                    "anyOf": [repeats, {"type": "object", "additionalProperties": repeats}]
                },
                "shape": schedules,
                "shape_multiple": {
                    "anyOf": [repeats, {"type": "object", "additionalProperties": repeats}]
                },
                "global_batch": schedule,
                "batch_multiple": repeats,
                "round": {"enum": list(ROUND)},
                "seed": {"type": "integer", "minimum": 0},
            }
        ),
    }


def _entries() -> list[tuple[str, Entry]]:
    import trainplan.schedules.reading  # noqa: F401 - fills the registry

    return sorted(REGISTRY.items())


def _one_key(name: str, value: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: value},
        "required": [name],
        "additionalProperties": False,
    }


def _arguments(entry: Entry) -> dict[str, Any]:
    """A mapping of parameters, or a list of them in order, or the first one alone."""
    required = [
        name for name, p in entry.parameters.items() if p.default is inspect.Parameter.empty
    ]
    named = {
        "type": "object",
        "properties": {name: _parameter(entry, p) for name, p in entry.parameters.items()},
        "required": required,
        "additionalProperties": False,
    }
    doc = inspect.getdoc(entry.build) or ""
    return {
        "description": doc.splitlines()[0] if doc else entry.name,
        "anyOf": [named, {"type": "array"}, {"type": ["number", "string"]}],
    }


def _parameter(entry: Entry, parameter: inspect.Parameter) -> dict[str, Any]:
    """What a parameter takes, from its annotation."""
    annotation = str(parameter.annotation)
    if parameter.name in entry.nested:
        return {"$ref": _REF + "schedule"}
    if annotation == "ShapeLike":
        return {"$ref": _REF + "shape"}
    if "Seq" in annotation or "tuple" in annotation:
        return {"anyOf": [{"type": "array"}, {"type": ["number", "string", "null"]}]}
    for word, definition in (("Time", "duration"), ("Duration", "duration"), ("Level", "level")):
        if word in annotation:
            return _maybe(annotation, {"$ref": _REF + definition})
    if annotation.startswith("Literal"):
        return {"enum": re.findall(r"""['"](.*?)['"]""", annotation)}
    if annotation in ("str", "str | None"):
        return _maybe(annotation, {"type": "string"})
    if "bool" in annotation:
        return {"type": "boolean"}
    return _maybe(annotation, {"type": "integer" if annotation.startswith("int") else "number"})


def _maybe(annotation: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]} if "None" in annotation else schema


def _phase() -> dict[str, Any]:
    """An item of a list of phases."""
    phase, hold, take = _phase_fields()
    return {"anyOf": [phase, _closed({"hold": hold}, "hold"), take]}


def _lone_phases() -> list[dict[str, Any]]:
    """Phases that stand alone, with a name."""
    return [
        _one_key(name, fields)
        for name, fields in zip(("phase", "hold", "take"), _phase_fields(), strict=True)
    ]


def _phase_fields() -> tuple[dict[str, Any], ...]:
    duration = {"$ref": _REF + "duration"}
    value = {"anyOf": [_NUMBER, {"type": "null"}]}
    length = {"duration": duration, "until": duration}
    ends = {"start": value, "end": value}
    shape = {"$ref": _REF + "shape"}
    return (
        _closed({**ends, **length, "shape": shape, "ahead": duration}) | {"minProperties": 1},
        {"anyOf": [_closed({"value": value, **length}), {"type": ["number", "array", "null"]}]},
        _closed({"schedule": {"$ref": _REF + "schedule"}, **length, "skip": duration}, "schedule"),
    )


def _resolved() -> dict[str, Any]:
    above_zero = {"type": "number", "exclusiveMinimum": 0}
    rates = dict.fromkeys(RATES, above_zero)
    fields = {"schedule": {"$ref": _REF + "schedule"}, "horizon": above_zero}
    return _closed({**fields, "unit": {"enum": list(UNITS)}, **rates}, "schedule", "horizon")


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _shapes() -> dict[str, Any]:
    with_parameters = [
        _one_key(name, {"anyOf": [_shape_fields(cls), {"type": ["number", "array"]}]})
        for name, cls in sorted(SHAPES.items())
        if dataclasses.fields(cls)  # type: ignore[arg-type]
    ]
    return {
        "description": "A curve on [0, 1] between two values, by name; or a registered name.",
        "anyOf": [{"enum": sorted(SHAPES)}, {"type": "string"}, *with_parameters],
    }


def _shape_fields(cls: type[Shape]) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    number = {"type": ["number", "null"]}
    return {
        "type": "object",
        "properties": {n: {"type": "array"} if n == "at" else number for n in names},
        "additionalProperties": False,
    }
