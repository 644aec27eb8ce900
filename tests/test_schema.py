"""The published JSON Schema is the generated one, takes good plans, and refuses wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trainplan as tp
from strategies import HORIZONS, SHORT_FORMS, schedules
from trainplan.schema import plan_schema

jsonschema = pytest.importorskip("jsonschema")
VALIDATOR = jsonschema.Draft202012Validator(plan_schema())
PUBLISHED = Path(tp.__file__).parent / "plan.schema.json"
s = tp.schedules

GOOD = [
    tp.Plan(horizon=20_000, lr=s.wsd(3e-4, "2%", "20%", "1-sqrt", 0.0), betas=(0.9, 0.95)),
    tp.Plan(horizon=100, lr=s.cosine(0.1, warmup=10) * 2.0 + 0.1, mask_rate=s.linear(0.3, 0.15)),
    tp.Plan(horizon=100, lr=s.linear(0.1).sample(at=[0, "50%"]).clip(0.01, None)),
    tp.Plan(lr=s.Sequence(s.Phase(0.0, 1.0, 10), s.Hold(None, 5), s.Phase(None, 0.1, 5, "rex"))),
    tp.Plan(
        horizon=100, lr=s.wsd(1.0, shape=s.Exponential(half_life=5), decay=None, decay_start=9)
    ),
    tp.Plan(horizon=100, lr=s.ReduceOnPlateau(0.1), momentum=0.9),
    tp.Plan(horizon=100, lr=s.constant(1.0, warmup=10)).branch(at=50, decay=20),
    tp.Plan(horizon=10**9, unit="tokens", tokens_per_step=1024, lr=s.power(0.02, 64, warmup="1%")),
]
WRONG = [
    {"horizon": 0, "lr": 1.0},
    {"unit": "meters", "lr": 1.0},
    {"lr": {"cosin": {"peak": 1.0}}},
    {"lr": {"cosine": {"peek": 1.0}}},
    {"lr": {"cosine": {"peak": "high"}}},
    {"lr": {"cosine": {"peak": 1.0}, "linear": {"peak": 1.0}}},
    {"lr": {"phases": [{"start": 0, "ende": 1}]}},
    {"lr": True},
    {"lr": []},
    {"lr": {"reduce_on_plateau": {"initial": 0.1, "mode": "low"}}},
    {"lr": {"reduce_on_plateau": {"initial": 0.1, "patiense": 3}}},
    {"lr": {"phases": [{"start": 0, "end": 1, "shape": {"rexx": 0.5}}]}},
    {"lr": {"phases": [{"start": 0, "end": 1, "duration": -1}]}},
    {"lr": {"scaled": {"schedule": {"rexx": 1}, "factor": 2}}},
    {"my knob": 1.0},
    [],
]


def test_the_published_schema_is_up_to_date():
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == plan_schema(), (
        "run  trainplan schema > src/trainplan/plan.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(plan_schema())


@pytest.mark.parametrize("plan", GOOD, ids=range(len(GOOD)))
def test_plans_that_can_be_written_fit_the_schema(plan):
    jsonschema.validate(json.loads(json.dumps(plan.to_dict())), plan_schema())


@given(schedules, st.none() | HORIZONS)
def test_any_plan_fits_the_schema(schedule, horizon):
    lr = schedule if horizon is None else schedule.resolve(horizon)
    plan = tp.Plan(horizon=1000, lr=lr, betas=(schedule, 0.9))
    VALIDATOR.validate(json.loads(json.dumps(plan.to_dict())))


@pytest.mark.parametrize("name", SHORT_FORMS)
def test_short_forms_fit_the_schema(name):
    VALIDATOR.validate({"lr": SHORT_FORMS[name][0]})


@pytest.mark.parametrize("plain", WRONG, ids=range(len(WRONG)))
def test_what_is_refused_does_not_fit_the_schema(plain):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain, plan_schema())
    with pytest.raises(tp.PlanError):
        tp.Plan.from_dict(plain)
