"""Shared prefixes: found from the plans alone, as long as possible, and never wrongly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trainplan as tp
from trainplan.lab.experiment import plan_curves
from trainplan.lab.segments import Curves, plan_segments


def curves(*values):
    return Curves(("lr[0]",), np.array(values, dtype=np.float64)[:, None])


def spans(graph, arm, seed=0):
    return [(graph.segments[k].start, graph.segments[k].stop) for k in graph.chains[arm, seed]]


arm_sets = st.lists(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.0]), min_size=1, max_size=12),
    min_size=1,
    max_size=6,
)


@given(arm_sets, st.integers(0, 4))
def test_every_run_is_covered_once_with_its_own_values(value_lists, shortest):
    arms = {f"arm{i}": curves(*values) for i, values in enumerate(value_lists)}
    graph = plan_segments(arms, [0, 1], context="", shortest=shortest)
    for (name, seed), chain in graph.chains.items():
        step, parent = 0, None
        for key in chain:
            segment = graph.segments[key]
            assert (segment.start, segment.parent, segment.seed) == (step, parent, seed)
            giver = arms[segment.arm].values[step : segment.stop]
            assert giver.tobytes() == arms[name].values[step : segment.stop].tobytes()
            step, parent = segment.stop, key
        assert step == arms[name].steps
        assert graph.segments[chain[-1]].ends


@given(arm_sets)
def test_no_two_segments_train_the_same_thing(value_lists):
    arms = {f"arm{i}": curves(*values) for i, values in enumerate(value_lists)}
    graph = plan_segments(arms, [0], context="", shortest=0)
    prefixes = {
        tuple(map(repr, values[: n + 1])) for values in value_lists for n in range(len(values))
    }
    assert graph.steps == len(prefixes)


def test_parents_come_before_their_children():
    arms = {"a": curves(1, 1, 1, 1), "b": curves(1, 1, 2, 2), "c": curves(1, 1, 2, 3)}
    graph = plan_segments(arms, [0], context="", shortest=1)
    seen = set()
    for key, segment in graph.segments.items():
        assert segment.parent is None or segment.parent in seen
        seen.add(key)
    assert graph.remaining_path(graph.chains["a", 0][0]) == 4


def test_an_arm_that_ends_within_another_is_a_part_of_it():
    graph = plan_segments(
        {"long": curves(*[1] * 20), "short": curves(*[1] * 12)}, [0], context="", shortest=1
    )
    assert (spans(graph, "long"), spans(graph, "short")) == ([(0, 12), (12, 20)], [(0, 12)])


def test_equal_arms_are_trained_once():
    graph = plan_segments({"a": curves(1, 2), "b": curves(1, 2)}, [0, 1], context="")
    assert (graph.planned_steps, graph.steps) == (8, 4)


def test_a_stretch_too_short_to_be_worth_it_is_not_shared():
    arms = {"a": curves(*[1] * 30), "b": curves(*[1] * 5, *[2] * 25)}
    assert plan_segments(arms, [0], context="", shortest=6).steps == 60
    assert plan_segments(arms, [0], context="", shortest=5).steps == 55


def test_arms_with_other_knobs_do_not_share():
    other = Curves(("momentum[0]",), np.ones((20, 1)))
    assert plan_segments({"a": curves(*[1] * 20), "b": other}, [0], context="").steps == 40


def test_arms_with_a_controller_do_not_share():
    controller = tp.schedules.ReduceOnPlateau(0.1)
    plan = tp.Plan(horizon=20, lr=controller)
    arms = {"a": plan_curves(plan), "b": plan_curves(plan.replace(weight_decay=0.1))}
    assert plan_segments(arms, [0], context="").steps == 40


def test_the_names_of_segments_tell_apart_all_that_matters():
    arm = {"a": curves(1, 2, 3)}
    keys = [
        next(iter(plan_segments(arms, seeds, context=context).segments))
        for arms, seeds, context in [
            (arm, [0], "x"),
            (arm, [1], "x"),
            (arm, [0], "y"),
            ({"a": curves(1, 2, 4)}, [0], "x"),
            ({"a": curves(1, 2)}, [0], "x"),
        ]
    ]
    assert len(set(keys)) == len(keys)


def test_the_name_of_an_arm_does_not_matter():
    a, b = (plan_segments({name: curves(1, 2)}, [0], context="") for name in ("a", "b"))
    assert list(a.segments) == list(b.segments)


def test_eight_horizons_of_one_wsd_plan_cost_at_most_forty_percent_of_their_sum():
    lr = tp.schedules.wsd(1e-3, warmup=50, decay="10%", shape="1-sqrt", end=0.0)
    plans = {str(n): tp.Plan(horizon=n, lr=lr) for n in range(500, 4001, 500)}
    graph = plan_segments({k: plan_curves(p) for k, p in plans.items()}, [0, 1], context="")
    assert graph.planned_steps == 2 * sum(range(500, 4001, 500))
    assert graph.steps <= 0.4 * graph.planned_steps


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        (tp.Plan(horizon=1000, unit="tokens", tokens_per_step=300, lr=0.1), 4),
        (tp.Plan(horizon=2, unit="epochs", steps_per_epoch=7, lr=0.1), 14),
    ],
)
def test_plans_in_other_units_are_read_at_the_time_of_each_step(plan, steps):
    assert plan_curves(plan).steps == steps


def test_a_plan_whose_length_in_steps_is_unknown_is_refused():
    with pytest.raises(tp.PlanError, match="tokens_per_step"):
        plan_curves(tp.Plan(horizon=1000, unit="tokens", lr=0.1))
    with pytest.raises(tp.PlanError, match="--steps"):
        plan_curves(tp.Plan(lr=0.1))
