"""A plan is data: it comes back the same from a file, and its past cannot be changed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trainplan as tp
from strategies import HORIZONS, schedules
from trainplan import files
from trainplan.errors import PlanError
from trainplan.schedules import ReduceOnPlateau, Schedule

WRITTEN = """\
# What a person writes.
name: wsd
horizon: 20_000
lr:
  wsd: {peak: 3e-4, warmup: 2%, decay: 20%, shape: 1-sqrt, end: 0.0}
weight_decay: 0.1
betas: [0.9, 0.95]
mask_rate:
  phases:
    - {start: 0.3, end: 0.15, duration: 50%}
    - hold: {}
momentum: {reduce_on_plateau: {initial: 0.9, patience: 3}}
"""


def plan() -> tp.Plan:
    return tp.Plan.from_yaml(WRITTEN)


def test_a_plan_file_is_read_as_written() -> None:
    read = plan()
    assert (read.name, read.horizon, read.unit) == ("wsd", 20_000, "steps")
    assert list(read) == ["lr", "weight_decay", "betas", "mask_rate", "momentum"]
    assert read.knobs["lr"] == tp.schedules.wsd(
        peak=3e-4, warmup="2%", decay="20%", shape="1-sqrt", end=0.0
    )
    assert read.at(10_000) == {
        "lr": 3e-4,
        "weight_decay": 0.1,
        "betas": (0.9, 0.95),
        "mask_rate": 0.15,
        "momentum": 0.9,
    }


def test_the_values_of_a_plan_are_those_of_its_schedules() -> None:
    times, values = plan().curve("lr")
    assert times.tolist() == list(range(20_000))
    alone = tp.schedules.wsd(3e-4, "2%", "20%", "1-sqrt", 0.0).resolve(20_000)
    assert values.tolist() == alone(times).tolist()
    assert plan().curve("betas", points=7)[1].shape == (7, 2)
    with pytest.raises(PlanError, match="not known before the run"):
        plan().curve("momentum")


def test_an_unknown_knob_suggests_the_nearest() -> None:
    with pytest.raises(KeyError, match="weight_decay"):
        plan()["weight_decai"]


@given(
    st.dictionaries(
        st.sampled_from(["lr", "weight_decay", "mask_rate", "x_1", "self", "at", "shape"]),
        schedules | st.tuples(schedules, schedules) | st.builds(ReduceOnPlateau, st.just(0.1)),
        min_size=1,
        max_size=3,
    ),
    HORIZONS,
    st.none() | st.sampled_from(["a", "steps", "plan: 3", "é", "null", "3e-4", "#"]),
)
def test_plans_come_back_equal_from_yaml(
    knobs: dict[str, Schedule], horizon: int, name: str | None
) -> None:
    before = tp.Plan(horizon=horizon, name=name, **knobs)  # type: ignore[arg-type]
    after = tp.Plan.from_yaml(before.to_yaml())
    assert after == before
    assert after.digest == before.digest
    assert after.name == name
    assert after.to_yaml() == before.to_yaml()
    assert eval(repr(before), vars(tp.schedules) | {"Plan": tp.Plan}) == before


def test_every_field_is_kept() -> None:
    full = tp.Plan(
        horizon=10.5,
        unit="epochs",
        name="n",
        steps_per_epoch=100,
        tokens_per_step=2048,
        samples_per_step=1.5,
        lr=0.1,
    )
    assert tp.Plan.from_yaml(full.to_yaml()) == full
    assert full.replace(name=None).digest == full.digest
    assert full.replace(horizon=11).digest != full.digest


def test_yaml_is_1_2_and_for_people() -> None:
    assert tp.Plan.from_yaml("lr: 3e-4").at(0) == {"lr": 3e-4}
    assert tp.Plan.from_yaml("name: on\nlr: 1").name == "on"
    text = plan().to_yaml()
    assert "horizon: 20000" in text
    assert max(map(len, text.splitlines())) <= 100
    assert text.index("name") < text.index("horizon") < text.index("lr")


ERRORS = {
    "lr: {phases: [{hold: 1}, {start: 0, end: 1, duration: -5}]}": "lr.phases[1].duration",
    "lr: {cosin: 3e-4}": "lr",
    "lr: {cosine: {peak: 3e-4, warmups: 3}}": "lr.cosine.warmups",
    "lr: {cosine: {peak: .nan}}": "lr.cosine.peak",
    "lr: {cosine: {peak: .inf}}": "lr.cosine.peak",
    "lr: {cosine: {peak: 1, warmup: 5 parsecs}}": "lr.cosine.warmup",
    "lr: {cosine: {peak: 1, end: '10'}}": "lr.cosine.end",
    "lr: {wsd: {peak: 1, shape: sqrt}}": "lr.wsd.shape",
    "lr: fast": "lr",
    "lr:": "lr",
    "lr: []": "lr",
    "betas: [0.9, x]": "betas[1]",
    "lr: {reduce_on_plateau: {initial: 0.1, factor: 2}}": "lr.reduce_on_plateau.factor",
    "lr: {reduce_on_plateau: {initial: 0.1, patiense: 2}}": "lr.reduce_on_plateau.patiense",
    "lr: {reduce_on_plateau: {}}": "lr.reduce_on_plateau",
    "horizon: 0\nlr: 1": "horizon",
    "horizon: -3\nlr: 1": "horizon",
    "horizon: .nan\nlr: 1": "horizon",
    "horizon: .inf\nlr: 1": "horizon",
    "horizon: 9007199254740994\nlr: 1": "horizon",
    "horizon: ten\nlr: 1": "horizon",
    "horizon: true\nlr: 1": "horizon",
    "unit: step\nlr: 1": "unit",
    "unit: [steps]\nlr: 1": "unit",
    "name: 3\nlr: 1": "name",
    "steps_per_epoch: 0\nlr: 1": "steps_per_epoch",
    "lr: {scaled: {schedule: {rex: {peak: 1, d: 2}}, factor: 2}}": "lr.scaled.schedule.rex.d",
    "lr: {sum: [1, {cosine: high}]}": "lr.sum[1].cosine.peak",
}


@pytest.mark.parametrize("text", ERRORS)
def test_errors_name_the_place_in_the_file(text: str) -> None:
    with pytest.raises(PlanError) as caught:
        tp.Plan.from_yaml(text, source="plan.yaml")
    assert caught.value.place == f"plan.yaml: {ERRORS[text]}"
    assert str(caught.value).startswith(f"plan.yaml: {ERRORS[text]}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("3", "a plan is a mapping"),
        ("[1, 2]", "a plan is a mapping"),
        ("{}", "needs a knob"),
        ("horizon: 10", "needs a knob"),
        ("3: 1", "not a name"),
        ("lr decay: 1", "not a name"),
        ("lr: 1\nlr: 2", "line 2"),
        ("lr: [1", "not YAML"),
        ("lr: {a: b: c}", "line 1"),
        ("a: &x 1\nlr: *x", "line 1: tags, anchors and aliases"),
        ("lr: !!python/object/apply:os.system [ls]", "tags, anchors and aliases"),
        ("lr: !!float 3", "tags, anchors and aliases"),
        ("lr: 1\n---\nlr: 2", "not YAML"),
        ("lr: \x00", "not YAML"),
        ("lr: " + "[" * 5000, "nested too deeply"),
        ("lr: 2001-13-45", "not"),
        ("lr: 1" + "0" * 5000, "YAML|finite|number"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        tp.Plan.from_yaml(text, source="plan.yaml")
    assert caught.value.place.startswith("plan.yaml")


def test_a_bomb_of_aliases_does_not_go_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(PlanError, match="tags, anchors and aliases"):
        tp.Plan.from_yaml("\n".join(lines))


def test_knobs_that_do_not_fit_the_horizon_are_named() -> None:
    long = tp.Plan(horizon=10, lr=tp.schedules.wsd(0.1, warmup=20))
    with pytest.raises(PlanError, match="longer than the whole") as caught:
        long.at(0)
    assert caught.value.place == "lr.phases"


# Files


def test_a_saved_plan_is_loaded_again(tmp_path: Path) -> None:
    plan().save(tmp_path / "plan.yaml")
    assert tp.Plan.load(tmp_path / "plan.yaml") == plan()
    assert os.listdir(tmp_path) == ["plan.yaml"]


def test_a_plan_without_a_name_is_called_after_its_file(tmp_path: Path) -> None:
    (tmp_path / "warm.yaml").write_text("\ufefflr: 0.1\n", encoding="utf-8")
    assert tp.Plan.load(tmp_path / "warm.yaml").name == "warm"


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.yaml: cannot read the plan: No such file"):
        tp.Plan.load(tmp_path / "none.yaml")
    with pytest.raises(PlanError, match="cannot read"):
        tp.Plan.load(tmp_path)
    (tmp_path / "raw.yaml").write_bytes(b"lr: \xff\xfe")
    with pytest.raises(PlanError, match=r"not UTF-8.*byte 4"):
        tp.Plan.load(tmp_path / "raw.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(PlanError, match="larger than 1 MB"):
        tp.Plan.load(tmp_path / "huge.yaml")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.yaml"
    plan().save(path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        plan().replace(horizon=7).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["plan.yaml"]


def test_a_plan_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    plan().save(path)
    before = path.read_bytes()
    nameless = tp.Plan(horizon=5, lr=tp.schedules.wsd(1.0, shape=lambda u: 1 - u))
    with pytest.raises(PlanError, match="register_shape"):
        nameless.save(path)
    assert path.read_bytes() == before


def test_readers_see_a_whole_file_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    plans = [plan().replace(horizon=h) for h in (1000, 2000)]
    plans[0].save(path)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for one in plans:
                one.save(path)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            assert tp.Plan.load(path) in plans
    finally:
        stop.set()
        writer.join()


# Extending and branching


def wsd(horizon: int = 100) -> tp.Plan:
    lr = tp.schedules.wsd(0.1, warmup="10%", decay="20%", shape="linear", end=0.0)
    return tp.Plan(horizon=horizon, lr=lr, weight_decay=0.1, betas=(0.9, 0.95))


def same_past(old: tp.Plan, new: tp.Plan, at: int) -> bool:
    return all(old.at(t) == new.at(t) for t in range(at))


def test_extending_keeps_the_past_to_the_bit() -> None:
    longer = wsd().extend(at=50, horizon=1000)
    assert same_past(wsd(), longer, 50)
    assert longer.horizon == 1000
    assert longer["lr"]([10, 799, 800, 900, 1000]).tolist() == pytest.approx(
        [0.1, 0.1, 0.1, 0.05, 0]
    )


def test_a_stable_phase_can_be_extended_up_to_its_very_end() -> None:
    longer = wsd().extend(at=80, horizon=1000)
    assert same_past(wsd(), longer, 80)
    assert longer["lr"]([80, 799]).tolist() == [0.1, 0.1]


@given(st.integers(0, 80), st.integers(100, 10_000))
def test_a_stable_phase_can_be_extended_at_any_step(at: int, horizon: int) -> None:
    old = wsd()
    if 1 < at < 10 and horizon >= 110:  # the warm-up under way is a tenth of the horizon
        with pytest.raises(PlanError, match="the past would change"):
            old.extend(at=at, horizon=horizon)
    else:
        assert same_past(old, old.extend(at=at, horizon=horizon), at)


def test_a_cosine_cannot_be_extended_and_the_error_says_where_and_what_instead() -> None:
    cosine = tp.Plan(horizon=100, lr=tp.schedules.cosine(0.1))
    with pytest.raises(PlanError) as caught:
        cosine.extend(at=50, horizon=200)
    error = caught.value
    assert error.place == "lr"
    old, new = (tp.schedules.cosine(0.1).resolve(h)(1) for h in (100, 200))
    assert f"first at step 1: it was {old:.9g} and would be {new:.9g}" in str(error)
    assert "branch(at, decay=...)" in error.remedy
    assert "warms up again" in error.remedy


def test_a_decay_under_way_cannot_be_extended() -> None:
    with pytest.raises(PlanError, match="first at step 81"):
        wsd().extend(at=90, horizon=1000)


def test_extending_before_anything_happened_is_a_new_plan() -> None:
    cosine = tp.Plan(horizon=100, lr=tp.schedules.cosine(0.1))
    assert cosine.extend(at=0, horizon=200) == cosine.replace(horizon=200)


@pytest.mark.parametrize("at", [-1, 101, float("nan"), True, "50"])
def test_the_time_of_a_change_lies_inside_the_run(at: object) -> None:
    for change in (
        lambda: wsd().extend(at=at, horizon=200),  # type: ignore[arg-type]
        lambda: wsd().branch(at=at, decay=10),  # type: ignore[arg-type]
    ):
        with pytest.raises(PlanError) as caught:
            change()
        assert caught.value.place == "at"


def test_wrong_horizons_are_refused() -> None:
    with pytest.raises(PlanError, match="before the 50 steps already done"):
        wsd().extend(at=50, horizon=40)
    with pytest.raises(PlanError, match="before the 50 steps already done"):
        wsd().branch(at=50, horizon=40)
    with pytest.raises(PlanError, match="above zero"):
        wsd().branch(at=50, decay=10, horizon=0)
    with pytest.raises(PlanError, match="without a horizon"):
        tp.Plan(lr=0.1).extend(at=3, horizon=10)


def test_a_branch_decays_from_where_the_trunk_was() -> None:
    trunk = tp.Plan(horizon=1000, lr=tp.schedules.wsd(0.1, warmup=10, decay=None), weight_decay=0.1)
    branch = trunk.branch(at=500, decay=100)
    assert same_past(trunk, branch, 500)
    assert branch.horizon == 600
    u = np.arange(100) / 100
    np.testing.assert_allclose(
        branch["lr"](np.arange(500, 600)), 0.1 * (1 - np.sqrt(u)), atol=1e-16
    )
    assert branch["weight_decay"](599) == 0.1


def test_branches_can_be_written_down_and_branched_again() -> None:
    trunk = tp.Plan(horizon=1000, lr=tp.schedules.cosine(0.1))
    once = trunk.branch(at=500, lr=tp.schedules.cosine(0.05, warmup=10), horizon=800)
    twice = once.branch(at=600, decay="50 steps", shape="linear", end="10%")
    assert tp.Plan.from_yaml(twice.to_yaml()) == twice
    assert same_past(trunk, twice, 500)
    assert same_past(once, twice, 600)
    assert twice.horizon == 650
    assert twice["lr"](650) == pytest.approx(0.1 * once["lr"](600))
    assert once["lr"](500) == 0
    assert once["lr"](510) == pytest.approx(0.05)
    assert once["lr"](800) == pytest.approx(0)


def test_a_branch_can_change_other_knobs() -> None:
    branch = wsd().branch(at=50, horizon=100, weight_decay=0.0, mask_rate=0.3)
    assert same_past(wsd(), branch.replace(**{"mask_rate": 0.3}), 0)
    assert [branch.at(t)["weight_decay"] for t in (49, 50)] == [0.1, 0.0]
    assert branch.at(0)["mask_rate"] == 0.3


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda p: p.branch(at=50, decay=-1), "decay"),
        (lambda p: p.branch(at=50, decay="3 epochs"), "decay"),
        (lambda p: p.branch(at=50, decay=10, lr=0.1), "decay"),
        (lambda p: p.branch(at=50, decay=10, shape="sqrt"), "shape"),
        (lambda p: p.branch(at=50, decay=10, end="low"), "end"),
        (lambda p: p.branch(at=50, betas=(0.9, 0.99)), "betas"),
        (lambda p: p.branch(at=50, lr={"cosin": 1}), "lr"),
        (lambda p: p.replace(horizon=None, lr=0.1).branch(at=50, decay="10%"), "decay"),
    ],
)
def test_branches_that_cannot_be_are_refused(change: object, place: str) -> None:
    with pytest.raises(PlanError) as caught:
        change(wsd())  # type: ignore[operator]
    assert caught.value.place == place


def test_plans_of_other_shapes_have_another_past() -> None:
    with pytest.raises(PlanError, match="betas"):
        wsd().check_past(wsd().replace(betas=(0.9, 0.95, 0.99)), 10)
    wsd().check_past(tp.Plan(horizon=100, momentum=0.9), 10)
