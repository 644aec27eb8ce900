"""The data of a plan round-trips, is checked and drawn, and becomes the order of a data set."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import trainplan as tp
from trainplan.cli import app
from trainplan.schema import plan_schema

TEXT = """
horizon: 200
lr: {wsd: {peak: 3e-4, warmup: 5%, decay: 20%, skip_zero: true}}
data:
  difficulty: {column: length}
  pacing: {root: {start: 10%, full_at: 50%}}
  mixture: {web: {linear: [1.0, 0.7]}, math: 0.3}
"""


def plan_of(data, lr=3e-4, **kwargs):
    return tp.Plan(horizon=kwargs.pop("horizon", 100), lr=lr, data=data, **kwargs)


COURSE = {"difficulty": {"column": "length"}, "pacing": {"linear": {"start": 0.2, "full_at": 50}}}


def test_a_plan_file_says_what_the_model_sees_and_survives_writing():
    plan = tp.Plan.from_yaml(TEXT)
    assert plan.data.difficulty == {"column": "length"}
    times = np.array([0, 50, 100, 199])
    assert plan.ready_data.open_share(times)[[0, 2]].tolist() == [0.1, 1.0]
    shares = plan.ready_data.shares(times)
    assert shares["web"][0] == pytest.approx(1 / 1.3)
    again = tp.Plan.from_yaml(plan.to_yaml())
    assert again == plan
    assert again.digest == plan.digest
    assert plan.replace(data=None).digest != plan.digest
    other = plan.replace(data={**COURSE, "pacing": {"linear": {"start": 0.3, "full_at": 50}}})
    assert other.digest != plan.digest


@pytest.mark.parametrize(
    "data",
    [
        COURSE,
        {"difficulty": "length", "pacing": "geometric"},
        {"difficulty": {"file": "scores.npy"}, "within": "sorted", "hardest_first": True},
        {"difficulty": "x", "pacing": {"wsd": {"peak": 1.0}}, "by": "value", "within": "draw"},
        {"mixture": {"a": 1, "b": {"cosine": 0.5}}, "exhausted": {"a": "drop"}, "max_epochs": 3},
    ],
)
def test_what_the_schema_takes_the_plan_takes_and_writes(data):
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(plan_schema())
    plain = {"horizon": 100, "lr": 0.1, "data": data}
    check.validate(plain)
    plan = tp.Plan.from_dict(plain)
    written = plan.to_dict()
    check.validate(json.loads(json.dumps(written)))
    assert tp.Plan.from_dict(written) == plan


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"difficulty": {"colum": "x"}, "pacing": "root"}, "data.difficulty"),
        ({"difficulty": "x"}, "data.pacing: within: pass needs pacing"),
        ({"difficulty": "x", "pacing": "root", "within": "sorted"}, "takes no pacing"),
        ({"pacing": "root"}, "needs a difficulty"),
        ({"difficulty": "x", "pacing": {"root": {"start": 2}}}, "data.pacing.root.start"),
        ({"difficulty": "x", "pacing": {"rooot": {}}}, "data.pacing"),
        ({"mixture": {"a": {"cosin": 1}}}, "data.mixture.a"),
        ({"mixture": {}}, "data.mixture"),
        ({"mixture": {"a": 1}, "exhausted": "loop"}, "data.exhausted"),
        ({"mixtur": {"a": 1}}, "Did you mean 'mixture'"),
        ({}, "says nothing"),
        ([], "must be a mapping"),
        ({"mixture": {"a": 1}, "seed": -1}, "data.seed"),
    ],
)
def test_mistakes_are_named_with_their_place(data, words):
    with pytest.raises(tp.PlanError, match=words):
        tp.Plan.from_dict({"horizon": 100, "lr": 0.1, "data": data})


def test_a_longer_run_keeps_what_was_seen_or_is_refused():
    fixed = plan_of({"difficulty": "x", "pacing": {"linear": {"start": 0.2, "full_at": 50}}})
    longer = fixed.extend(at=60, horizon=200)
    assert longer.ready_data.open_share(np.array([25.0])).tolist() == [0.6]
    relative = plan_of({"difficulty": "x", "pacing": {"linear": {"start": 0.2, "full_at": "50%"}}})
    past = relative.extend(at=60, horizon=200)
    assert past.ready_data.open_share(np.array([25.0])).tolist() == [0.6]
    with pytest.raises(tp.PlanError, match=r"data\.pacing: the past would change"):
        relative.extend(at=30, horizon=200)
    mixed = plan_of({"mixture": {"a": {"linear": [1.0, 0.5]}, "b": 1}})
    with pytest.raises(tp.PlanError, match=r"data\.mixture\.a: the past would change"):
        mixed.extend(at=30, horizon=200)
    branch = fixed.branch(at=60, decay=20)
    assert branch.data == fixed.data


def test_a_plan_becomes_the_order_of_a_data_set():
    data = {"length": list(range(100))}
    source = tp.data.from_plan(plan_of(COURSE), data, global_batch=8)
    assert source.steps == 100
    assert [source.open_at(t) for t in (0, 25, 50)] == [20, 60, 100]
    tokens = plan_of(
        {**COURSE, "pacing": {"linear": {"start": 0.2, "full_at": "50%"}}},
        horizon=10_000,
        unit="tokens",
        tokens_per_step=100,
        samples_per_step=8,
    )
    source = tp.data.from_plan(tokens, data)
    assert (source.steps, source.global_batch) == (100, 8)
    assert [source.open_at(t) for t in (0, 25, 50)] == [20, 60, 100]
    samples = plan_of(COURSE, horizon=800, unit="samples")
    assert tp.data.from_plan(samples, data, 8).steps == 100


def test_a_mixture_of_a_plan_may_open_its_data_sets_from_easy_to_hard():
    plan = tp.Plan.from_yaml(TEXT)
    datasets = {
        name: [{"length": (7 * i) % n} for i in range(n)]
        for name, n in (("web", 500), ("math", 90))
    }
    columns = {name: tp.data.Joined({name: rows}).datasets[name] for name, rows in datasets.items()}
    hf = pytest.importorskip("datasets")
    columns = {name: hf.Dataset.from_list(rows) for name, rows in datasets.items()}
    source = tp.data.from_plan(plan, columns, global_batch=16)
    assert source.steps == 200
    joined = tp.data.Joined(columns)
    lengths = np.array([row["length"] for row in joined.__getitems__(range(590))])
    early = np.concatenate([source.examples(t, 0, 16) for t in range(3)])
    web = early[early < 500]
    # A pass is over what was open at its start.
    assert lengths[web].max() < 500 * 0.1 + 1
    assert len(set(web.tolist())) == web.size
    seen = np.concatenate([source.examples(t, 0, 16) for t in range(200)])
    assert set(seen.tolist()) == set(range(590))
    again = tp.data.from_plan(plan, columns, global_batch=16)
    assert np.array_equal(again.examples(150, 0, 16), source.examples(150, 0, 16))
    state = tp.data.BatchSampler(source).state_dict(step=150)
    resumed = tp.data.BatchSampler(tp.data.from_plan(plan, columns, global_batch=16))
    resumed.load_state_dict(json.loads(json.dumps(state)))
    assert list(next(iter(resumed))) == source.examples(150, 0, 16).tolist()


def test_missing_pieces_are_named(tmp_path):
    with pytest.raises(tp.PlanError, match="says nothing of the data"):
        tp.data.from_plan(tp.Plan(lr=0.1), [], 8)
    with pytest.raises(tp.PlanError, match="size of a step"):
        tp.data.from_plan(plan_of(COURSE), {"length": [1]})
    with pytest.raises(tp.PlanError, match="no such column"):
        tp.data.from_plan(plan_of(COURSE), {"size": [1]}, 1)
    with pytest.raises(tp.PlanError, match="mixture is of"):
        tp.data.from_plan(plan_of({"mixture": {"a": 1}}), {"b": [1]}, 1)
    file = {"difficulty": {"file": str(tmp_path / "x.npy")}, "within": "sorted"}
    with pytest.raises(tp.PlanError, match="no such file"):
        tp.data.from_plan(plan_of(file), [1, 2], 1)
    np.save(tmp_path / "x.npy", np.array([2.0, 1.0]))
    assert tp.data.from_plan(plan_of(file), [1, 2], 1).examples(0, 0, 1).tolist() == [1]


s = tp.schedules
LATE = {"difficulty": "x", "pacing": {"linear": {"start": 0.1, "full_at": "100%"}}}


def findings(data, lr):
    return [(found.level, found.place, found.message) for found in tp.check(plan_of(data, lr))]


def test_the_best_data_at_a_vanishing_rate_are_found_with_their_share_of_the_area():
    sorted_data = {"difficulty": "x", "within": "sorted"}
    ((level, place, message),) = findings(sorted_data, s.cosine(3e-4))
    assert (level, place) == ("warning", "data.within")
    share = tp.data.rate_share(s.cosine(3e-4).resolve(100)(np.arange(100)))
    assert f"gets {share:.2%}" in message
    assert findings(sorted_data, s.linear(3e-4, end="40%")) == []
    ((level, place, message),) = findings(LATE, s.cosine(3e-4))
    assert (level, place) == ("warning", "data.pacing")
    early = {"difficulty": "x", "pacing": {"root": {"start": 0.3, "full_at": "20%"}}}
    assert findings(early, s.cosine(3e-4)) == []


def test_a_data_set_that_comes_when_the_rate_has_vanished_is_found():
    late = {"phases": [{"hold": {"value": 0.0, "duration": "85%"}}, {"hold": 1.0}]}
    data = {"mixture": {"web": 1.0, "math": late}}
    ((level, place, message),) = findings(data, s.cosine(3e-4))
    assert (level, place) == ("warning", "data.mixture.math")
    assert "7.50% of what is seen" in message


def test_weights_and_pacings_out_of_range_are_found():
    falling = {"mixture": {"a": {"linear": [1.0, -1.0]}, "b": 2.0}}
    assert ("error", "data.mixture.a") in [f[:2] for f in findings(falling, s.cosine(3e-4))]
    nothing = {"mixture": {"a": 0.0}}
    assert ("error", "data.mixture") in [f[:2] for f in findings(nothing, s.cosine(3e-4))]
    above = {"difficulty": "x", "pacing": {"linear": [0.5, 1.5]}}
    assert ("warning", "data.pacing") in [f[:2] for f in findings(above, s.cosine(3e-4))]
    never = {"difficulty": "x", "pacing": {"linear": {"start": 0.1, "end": 0.5, "full_at": 9}}}
    assert ("note", "data.pacing") in [f[:2] for f in findings(never, s.cosine(3e-4))]
    overlap = {
        "difficulty": "x",
        "pacing": {"phases": [{"hold": {"value": 1, "duration": "2 epochs"}}]},
    }
    assert ("error", "data.pacing.phases[0]") in [f[:2] for f in findings(overlap, s.cosine(3e-4))]


def test_show_draws_what_will_be_seen_when(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(TEXT)
    shown = CliRunner().invoke(app, ["show", str(file)])
    assert shown.exit_code == 0
    for column in ("open", "share web", "share math"):
        assert column in shown.output
    checked = CliRunner().invoke(app, ["check", str(file)])
    assert "nothing found" in checked.output


def test_a_comparison_refuses_what_its_workloads_would_ignore():
    pytest.importorskip("torch")
    from trainplan.lab.workload import check_data

    check_data(tp.Plan(lr=0.1))
    with pytest.raises(tp.PlanError, match="order their own data"):
        check_data(plan_of(COURSE))
