"""Shapes and batch sizes of a plan round-trip, are checked and drawn, and reach the sampler."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

import trainplan as tp
from trainplan.cli import app
from trainplan.data import BatchSampler, from_plan
from trainplan.schema import plan_schema

TEXT = """
horizon: 100
lr: {wsd: {peak: 3e-4, warmup: 5%, decay: 20%, skip_zero: true}}
data:
  shape: {length: {linear: {peak: 512, end: 4096, duration: 50%}}, frames: 4}
  shape_multiple: {length: 64}
  global_batch: {linear: {peak: 16, end: 64}}
  batch_multiple: 8
  round: nearest
"""


def plan_of(data, **kwargs):
    return tp.Plan(horizon=kwargs.pop("horizon", 100), lr=3e-4, data=data, **kwargs)


def findings(data, **kwargs):
    return [
        (found.level, found.place, found.message + found.remedy)
        for found in tp.check(plan_of(data, **kwargs))
        if found.place.startswith("data")
    ]


def test_a_plan_file_says_shapes_and_batch_sizes():
    plan = tp.Plan.from_yaml(TEXT)
    again = tp.Plan.from_yaml(plan.to_yaml())
    assert again == plan
    assert again.digest == plan.digest
    other = plan.replace(data={**plan.data.plain(), "shape": {"length": 512}, "shape_multiple": 64})
    assert other.digest != plan.digest
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(plan_schema())
    check.validate({"horizon": 100, "lr": 0.1, "data": plan.data.plain()})


def test_the_sampler_follows_the_plan():
    plan = tp.Plan.from_yaml(TEXT)
    source = from_plan(plan, range(1000))
    sampler = BatchSampler(source, ranks=2, rank=0, accumulation=4)
    assert source.steps == 100
    shown = plan.ready_data.sizes(np.arange(100.0))
    assert [source.size(t) for t in range(100)] == shown["global batch"].tolist()
    batches = [sampler.batch(4 * t) for t in range(100)]
    assert [b.shape["length"] for b in batches] == shown["shape length"].tolist()
    assert {b.shape["frames"] for b in batches} == {4}
    assert batches[0].shape["length"] == 512
    assert batches[-1].shape["length"] == 4096


def test_shapes_go_with_any_order():
    shape = {"shape": {"crop": {"linear": {"peak": 8, "end": 16}}}}
    course = {"difficulty": {"column": "x"}, "pacing": {"linear": [0.5, 1.0]}}
    table = {"x": list(range(40))}
    for data, dataset in (
        ({}, table["x"]),
        (course, table),
        ({"mixture": {"a": 1, "b": 2}}, {"a": table["x"], "b": table["x"]}),
    ):
        plan = plan_of({**data, **shape}, horizon=9)
        sampler = BatchSampler(from_plan(plan, dataset, global_batch=4))
        assert [b.shape["crop"] for b in sampler] == [8, 9, 10, 11, 12, 12, 13, 14, 15]


def test_check_names_the_first_step_that_cannot_be():
    ramp = {"linear": {"peak": 64, "end": 128}}
    ((level, place, text),) = findings({"global_batch": ramp, "batch_multiple": 32})
    assert (level, place) == ("error", "data.global_batch")
    assert "step 1" in text
    assert "64 and 96" in text
    ((level, place, text),) = findings(
        {"global_batch": ramp, "batch_multiple": 32, "round": "nearest"}
    )
    assert (level, place) == ("note", "data.global_batch")
    assert "first step 1: 64.64 examples to 64" in text
    assert findings({"global_batch": 64, "batch_multiple": 32}) == []
    ((level, place, _),) = findings({"shape": {"crop": {"linear": [4, -4]}}})
    assert (level, place) == ("error", "data.shape.crop")
    found = findings({"global_batch": 64}, unit="tokens", horizon=1e6, tokens_per_step=1000)
    assert [f[:2] for f in found] == [("error", "data.global_batch")]


def test_show_draws_shapes_over_time(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(TEXT)
    shown = CliRunner().invoke(app, ["show", str(file)])
    assert shown.exit_code == 0
    for column in ("shape length", "shape frames", "global batch"):
        assert column in shown.output


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"shape": {}}, "data.shape"),
        ({"shape": 16}, "data.shape"),
        ({"shape": {"crop": 16}, "shape_multiple": {"crops": 2}}, "data.shape_multiple"),
        ({"shape": {"crop": 16}, "shape_multiple": 0}, "data.shape_multiple"),
        ({"global_batch": 8, "round": "up"}, "data.round"),
        ({"global_batch": 8, "mixture": {"a": 1}}, "data.global_batch"),
    ],
)
def test_what_cannot_be_meant_is_refused(data, place):
    with pytest.raises(tp.PlanError) as error:
        plan_of(data)
    assert error.value.place == place


def test_other_sizes_and_units_are_refused():
    with pytest.raises(tp.PlanError, match="no other size"):
        from_plan(plan_of({"global_batch": 8}), range(40), global_batch=8)
