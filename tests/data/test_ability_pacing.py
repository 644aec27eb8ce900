"""Levels follow the ability by each rule, examples within them are shown, and runs resume."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import (
    AbilityPacing,
    BatchSampler,
    Curriculum,
    Feedback,
    ability_subset,
    competence_count,
    pacing,
    rank_examples,
    two_step_count,
)
from trainplan.data.ability_pacing import RULES

HARD = np.random.default_rng(1).normal(size=200)


@given(st.lists(st.floats(-4, 4), min_size=1, max_size=20), st.integers(1, 3))
def test_the_default_rule_never_closes_and_always_opens_what_was_reached(estimates, patience):
    pacing = AbilityPacing(estimates[0], patience=patience)
    levels = [pacing.level] + [pacing.update(x) for x in estimates[1:]]
    assert np.all(np.diff(levels) >= 0)
    assert np.all(np.array(levels) >= np.maximum.accumulate(estimates))
    assert levels[-1] <= max(estimates) + 0.1 * len(estimates) + 1e-9


def test_the_released_rule_for_glue_is_a_ramp_whatever_is_learned():
    for estimates in ([-0.5, 0.3, 1.0, 2.0], [-0.5, -1.0, -2.0, -3.0]):
        pacing = AbilityPacing(estimates[0], "glue")
        levels = [pacing.level] + [pacing.update(x) for x in estimates[1:]]
        assert levels == pytest.approx([-0.5, -0.4, -0.3, -0.2])


def test_rules_from_below_where_the_released_ones_begin():
    assert AbilityPacing(-6.0, "glue").level == pytest.approx(0.1)
    assert AbilityPacing(-6.0, "ag_news").level == pytest.approx(0.1)
    assert AbilityPacing(-6.0, "gsm8k").level == -6.0


def test_the_last_epochs_may_be_on_everything():
    pacing = AbilityPacing(-0.5, "gsm8k", full_after=2)
    source = Curriculum(HARD, Feedback(pacing), 8, by="value", steps=9)
    opened = [source.open_at(0)]
    for step in range(3):
        source.pacing.observe(step, ability=-0.4 + 0.1 * step)
        opened.append(source.open_at(step + 1))
    assert opened == [(HARD <= -0.5).sum(), (HARD <= -0.4).sum(), 200, 200]


@settings(max_examples=50)
@given(st.data())
def test_any_rule_goes_on_from_its_state(data):
    rule = data.draw(st.sampled_from(RULES))
    estimates = data.draw(st.lists(st.floats(-6, 6), min_size=2, max_size=12))
    stop = data.draw(st.integers(0, len(estimates) - 1))
    first = AbilityPacing(0.2, rule, patience=2)
    for estimate in estimates[:stop]:
        first.update(estimate)
    again = AbilityPacing(0.0, rule, patience=2)
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    rest = estimates[stop:]
    assert [first.update(x) for x in rest] == [again.update(x) for x in rest]


def run(curriculum, steps, state=None):
    """Steps in which an imaginary model learns from what it is shown, and reports its ability."""
    sampler = BatchSampler(curriculum, ranks=1, rank=0)
    ability = 0.0
    if state is not None:
        sampler.load_state_dict(state["sampler"])
        ability = state["ability"]
    lag, seen, states = curriculum.lag, [], []
    for batch in sampler:
        seen.append(list(batch))
        step = batch.step
        ability = 0.9 * ability + 0.1 * (1.5 * HARD[seen[-1]].max() - 0.8)
        due = curriculum.next_pass(step) == step + 1 + lag
        curriculum.pacing.observe(step, **({"ability": ability} if due else {}))
        saved = {"sampler": sampler.state_dict(step=step + 1), "ability": ability}
        states.append(json.loads(json.dumps(saved)))
        if len(states) == steps:
            break
    return seen, states


def course(lag=0, **kwargs):
    given = {"by": "value", "on_empty": "least", "least": 24, "steps": 60}
    feedback = Feedback(AbilityPacing(-0.9), lag)
    return Curriculum(HARD, feedback, 8, seed=2, **given | kwargs)


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("stop", [1, 9, 10, 31])
def test_a_stopped_run_goes_on_with_the_same_examples(lag, stop):
    whole, states = run(course(lag), 60)
    assert len(states) == 60
    again, _ = run(course(lag), 60 - stop, states[stop - 1])
    assert whole[:stop] + again == whole


def test_each_pass_shows_what_is_within_the_level_once():
    source = course()
    seen = np.concatenate(run(source, 60)[0])
    position, sizes = 0, []
    while position < seen.size:
        _, begin, opened = source._pass_at(position)
        assert begin == position
        shown = seen[position : position + opened]
        assert len(set(shown)) == shown.size
        assert set(shown) <= set(rank_examples(HARD)[:opened])
        sizes.append(opened)
        position += opened
    assert sizes[0] == (HARD <= -0.9).sum()
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 2


def test_an_ability_below_every_example_opens_the_least_and_no_more():
    # From scratch the estimate may stay there: what is opened then grows by the increments alone.
    source = Curriculum(
        HARD, Feedback(AbilityPacing(-9.0)), 8, by="value", on_empty="least", least=16, steps=9
    )
    for step in range(8):
        assert source.open_at(step) == 16
        source.pacing.observe(step, ability=-9.0)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=30), st.floats(-3, 3), st.integers(1, 40))
def test_subsets_hold_all_within_the_window_or_the_least(values, ability, least):
    b = np.array(values)
    found = ability_subset(b, ability, lower=-1.0, upper=0.5, least=least)
    inside = np.flatnonzero((b >= ability - 1.0) & (b <= ability + 0.5))
    if inside.size >= least:
        assert sorted(found) == inside.tolist()
    else:
        assert found.tolist() == np.argsort(b, kind="stable")[:least].tolist()


def test_windows_may_be_open_above_or_at_the_end():
    b = [0.0, 1.0, 2.0]
    assert ability_subset(b, 1.0, strict=True).tolist() == [0]
    hard = ability_subset(b, 1.0, lower=0.0, upper=math.inf, ranking=rank_examples(b, "hardest"))
    assert hard.tolist() == [2, 1]


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 3)), min_size=1, max_size=40))
def test_labels_take_turns(items):
    b, labels = np.array([x for x, _ in items]), np.array([x for _, x in items])
    order = np.argsort(b, kind="stable")
    lists = {}
    for i in order:
        lists.setdefault(labels[i], []).append(i)
    expected = []
    while any(lists.values()):
        expected += [kept.pop(0) for kept in lists.values() if kept]
    assert rank_examples(b, labels=labels).tolist() == expected


@pytest.mark.parametrize("kind", ["linear", "root"])
def test_competence_by_epochs_is_the_pacing_up_to_the_last_example(kind):
    rule = pacing(kind, 0.01, full_at=7)
    counts = [competence_count(1000, epoch, 7, kind) for epoch in range(12)]
    assert np.abs(counts - 1000 * rule(np.arange(12))).max() <= 1


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: competence_count(10, 0, 5, "cubic"), "kind"),
        (lambda: AbilityPacing(math.nan), "start"),
        (lambda: AbilityPacing(0.0, "paper"), "rule"),
        (lambda: AbilityPacing(0.0, increment=-0.1), "increment"),
        (lambda: AbilityPacing(0.0, patience=0), "patience"),
        (lambda: AbilityPacing(0.0).update(math.inf), "ability"),
        (lambda: AbilityPacing(0.0).load_state_dict({"level": 0.0}), "state"),
        (lambda: ability_subset([0.0], 0.0, ranking=[0, 1]), "ranking"),
        (lambda: rank_examples([0.0], "random"), "ordering"),
        (lambda: rank_examples([0.0], labels=[0, 1]), "labels"),
        (lambda: two_step_count(0, 0, 2), "n"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
