"""Rounds have the sizes that were asked for, draw by weight, and go on exactly after a stop."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import Plan, PlanError, check, schedules
from trainplan.data import (
    BatchSampler,
    Curriculum,
    WeightedSubsets,
    cyclic_counts,
    cyclic_sizes,
    effective_number,
    from_plan,
    inclusion_probabilities,
    loss_weights,
    pacing,
    ramp_sizes,
)

RNG = np.random.default_rng(0)
WEIGHTS = RNG.lognormal(0.0, 2.0, 103)


def subsets(**kwargs):
    given = {"weights": WEIGHTS, "sizes": cyclic_sizes(budget=4), "global_batch": 8, "seed": 3}
    return WeightedSubsets(**given | kwargs)


def shown(source, first=0):
    sampler = BatchSampler(source, ranks=1, rank=0)
    sampler.seek(step=first)
    return [list(batch) for batch in sampler]


ENDS = st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted)


@settings(max_examples=50)
@given(ENDS, st.floats(0.1, 0.9), st.floats(0.01, 30))
def test_cycles_move_between_their_ends_until_the_budget_is_reached(ends, multiplier, budget):
    low, high = ends
    sizes = cyclic_sizes(low, high, multiplier, budget=budget)
    assert sizes[0] == low
    assert min(sizes) == low
    assert max(sizes) <= high
    assert sum(sizes[:-1]) < budget <= sum(sizes) * (1 + 1e-12)
    turned = [
        b for a, b, c in zip(sizes, sizes[1:], sizes[2:], strict=False) if (b - a) * (c - b) < 0
    ]
    assert set(turned) <= {low, high}
    whole = cyclic_sizes(low, high, multiplier, budget=budget, until_full=True)
    assert whole == sizes[: len(whole)]
    assert whole[-1] == high or high not in sizes


def test_sizes_against_the_published_loop_on_odd_ends():
    assert cyclic_sizes(1.0, 0.25, budget=2) == [1.0, 0.25, 1.0]  # not meant, but said
    assert cyclic_sizes(0.25, 0.25, budget=0.75) == [0.25, 0.25, 0.25]


def test_counts_in_whole_examples_may_drift_and_ramps_stay():
    found = cyclic_counts(7, 0.3, 1.0, 0.6, budget=60)
    assert found[:8] == [3, 5, 7, 6, 4, 3, 5, 7]
    assert cyclic_counts(10, 0.2, budget=40, strategy="lower_to_bigger") == [2, 4, 8, 10, 10, 10]
    assert cyclic_counts(10, 1.0, 0.2, budget=25, strategy="bigger_to_lower") == [
        10,
        5,
        2,
        2,
        2,
        2,
        2,
    ]
    assert ramp_sizes(0.5, 0.5, budget=3, hold=2, growing=False) == [1.0, 1.0, 0.5, 0.5]


@settings(max_examples=30)
@given(st.integers(1, 30), st.sampled_from(["short", "drop"]), st.integers(0, 5))
def test_a_round_shows_its_examples_once_in_batches_of_its_own(batch, tail, seed):
    source = subsets(global_batch=min(batch, 25), tail=tail, seed=seed)
    batches, begin = shown(source), 0
    for count, drawn, end in zip(
        source.counts,
        (np.asarray(cyclic_sizes(budget=4)) * 103).astype(int),
        source.ends,
        strict=True,
    ):
        seen = list(itertools.chain(*batches[begin:end]))
        assert len(set(seen)) == len(seen) == count
        assert count == (
            drawn if tail == "short" else drawn // source.global_batch * source.global_batch
        )
        begin = end
    assert begin == source.steps == len(batches)
    for step in range(source.steps):
        assert source.size(step) == len(batches[step])
        assert source.step_at(source.position(step)) == step


def test_draws_have_the_exact_probabilities_of_inclusion():
    weights, k, rounds = np.array([1.0, 2, 4, 0.5, 0.5, 8]), 3, 2500
    source = WeightedSubsets(weights, [k] * rounds, 3)
    drawn = np.array([source.drawn(r) for r in range(rounds)])
    seen = np.bincount(drawn.ravel(), minlength=6)
    expected = inclusion_probabilities(weights, k)
    deviation = (seen / rounds - expected) / np.sqrt(expected * (1 - expected) / rounds)
    assert np.abs(deviation).max() < 4
    # The first place is a shuffle's, not the heaviest example's.
    first = np.bincount(drawn[:, 0], minlength=6) / rounds
    assert np.abs(first - expected / k).max() < 0.03


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-12, 12), min_size=2, max_size=6), st.data())
def test_inclusion_agrees_with_all_orders_of_drawing(logs, data):
    weights = np.exp(logs)
    k = data.draw(st.integers(1, len(logs)))
    exact = np.zeros(len(logs))
    for chosen in itertools.permutations(range(len(logs)), k):
        p, rest = 1.0, list(weights)
        for i in chosen:
            p *= weights[i] / math.fsum(rest)
            rest[i] = 0.0
        exact[list(chosen)] += p
    assert np.allclose(inclusion_probabilities(weights, k), exact, atol=1e-9)


def test_tiny_and_zero_weights_are_drawn_last():
    source = WeightedSubsets([1e-320, 0.0, 1e300, 1.0, 1e-5], [3, 4, 2], 4)
    assert sorted(source.drawn(0)) == [2, 3, 4]
    assert sorted(source.drawn(1)) == [0, 2, 3, 4]
    with pytest.raises(PlanError, match="5 different examples, and 4"):
        WeightedSubsets([1e-320, 0.0, 1e300, 1.0, 1e-5], [1.0], 4)


def test_weights_from_losses():
    losses = np.array([0.0, 0.5, 3.0, 2000.0])
    assert loss_weights(losses)[0] == pytest.approx(1.0)
    assert effective_number(loss_weights(losses)) == pytest.approx(1.0)
    assert effective_number(loss_weights(losses, "random")) == pytest.approx(4.0)
    assert (loss_weights(losses, "hard") > 0).all()
    spared = loss_weights(losses, "exponential", rate=1.0)
    assert spared[3] == spared[2]
    assert np.all(np.diff(loss_weights(losses, floor=0.1)) < 0)


@pytest.mark.parametrize("stop", [0, 1, 5, 17, 40])
def test_a_stopped_run_goes_on_with_the_same_examples(stop):
    whole = shown(subsets())
    sampler = BatchSampler(subsets(), ranks=1, rank=0)
    first = [list(batch) for batch, _ in zip(sampler, range(stop), strict=False)]
    state = json.loads(json.dumps(sampler.state_dict(step=stop)))
    again = BatchSampler(subsets(), ranks=1, rank=0)
    again.load_state_dict(state)
    assert first + [list(batch) for batch in again] == whole
    assert shown(subsets(), stop) == whole[stop:]


def self_scored(sampler, seen):
    """Weights that depend on what was seen, set when a round is over."""
    source = sampler.source
    for batch in sampler:
        seen.append(list(batch))
        number = int(np.searchsorted(source.ends, len(seen))) + 1
        if len(seen) == source.ends[number - 1] and number < len(source.ends):
            source.set_weights(
                1.0 + np.bincount(list(itertools.chain(*seen)), minlength=103) ** 2, at=number
            )
        yield len(seen)


@pytest.mark.parametrize("stop", [3, 7, 10, 30])
def test_weights_that_the_run_has_set_survive_a_stop(stop):
    whole = []
    for _ in self_scored(BatchSampler(subsets(), ranks=1, rank=0), whole):
        pass
    assert whole != shown(subsets())
    sampler, seen = BatchSampler(subsets(), ranks=1, rank=0), []
    state = next(
        json.loads(json.dumps(sampler.state_dict(step=done)))
        for done in self_scored(sampler, seen)
        if done == stop
    )
    again = BatchSampler(subsets(), ranks=1, rank=0)
    again.load_state_dict(state)
    for _ in self_scored(again, seen):
        pass
    assert seen == whole


def test_weights_of_a_round_under_way_stay():
    source = subsets()
    source.drawn(1)
    for at in (0, 1):
        with pytest.raises(PlanError, match="round 1 are in use"):
            source.set_weights(WEIGHTS, at=at)
    source.set_weights(WEIGHTS[::-1], at=3)
    assert np.array_equal(source.drawn(2), subsets().drawn(2))
    assert not np.array_equal(source.drawn(3), subsets().drawn(3))


def test_ranks_share_rounds_out_if_their_sizes_allow():
    source = subsets(tail="drop")
    parts = [[list(b) for b in BatchSampler(subsets(tail="drop"), ranks=2, rank=r)] for r in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == shown(source)
    with pytest.raises(PlanError, match="cannot be shared out"):
        list(BatchSampler(subsets(), ranks=2, rank=0))


def test_a_cyclic_pacing_is_the_cycle_in_a_curriculum_and_in_a_plan():
    # Passes over the easiest part, each as long as the part: 1000 examples, 10 a step.
    rule = pacing("cyclic", 0.25, 75)
    source = Curriculum(np.arange(1000), rule, 10, steps=500)
    begins = np.cumsum([0, *cyclic_sizes(budget=4)]) * 100
    for number, (begin, size) in enumerate(zip(begins, cyclic_sizes(budget=4), strict=False)):
        steps = range(round(begin), round(begin + 100 * size))
        seen = np.concatenate([source.examples(step, 0, 10) for step in steps])
        assert sorted(seen) == list(range(round(1000 * size))), number
    assert schedules.from_dict(rule.to_dict()) == rule
    data = {"difficulty": {"column": "x"}, "pacing": {"cyclic": {"start": "25%", "full_at": 75}}}
    plan = Plan(horizon=500, lr=0.1, data=data)
    assert from_plan(plan, {"x": np.arange(1000)}, 10).pacing(80) == 1.0
    assert not [found for found in check(plan) if found.level == "error"]
    short = pacing("cyclic", 0.25, "50%").resolve(300)
    assert [short(t) for t in (49, 50, 149, 150, 299)] == [0.25, 0.5, 0.5, 1.0, 1.0]
    shares = pacing("cyclic", 0.25, "10%").resolve(720)
    assert [shares(t) for t in (23, 24, 71, 72, 168, 216, 240)] == [
        0.25,
        0.5,
        0.5,
        1,
        0.5,
        0.25,
        0.5,
    ]


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: subsets(weights=[1.0, -1.0]), "weights[1]"),
        (lambda: subsets(sizes=[0.5, 1.5]), "sizes[1]"),
        (lambda: subsets(sizes=[0.001]), "sizes[0]"),
        (lambda: subsets(sizes=[]), "sizes"),
        (lambda: subsets(sizes=[5], tail="drop"), "sizes"),
        (lambda: subsets(tail="wrap"), "tail"),
        (lambda: subsets().set_weights(WEIGHTS[1:], at=1), "weights"),
        (lambda: subsets().set_weights(WEIGHTS, at=99), "at"),
        (lambda: cyclic_sizes(0.0, budget=1), "start"),
        (lambda: cyclic_sizes(multiplier=1.0, budget=1), "multiplier"),
        (lambda: cyclic_sizes(budget=math.inf), "budget"),
        (lambda: cyclic_counts(10, budget=10, strategy="sharp"), "strategy"),
        (lambda: ramp_sizes(2.0, budget=1), "edge"),
        (lambda: pacing("cyclic", 1.0), "start"),
        (lambda: pacing("cyclic", full_at=0), "full_at"),
        (lambda: loss_weights([0.1, float("nan")]), "losses[1]"),
        (lambda: loss_weights([0.1], "medium"), "kind"),
        (lambda: loss_weights([1e6], "exponential"), "rate"),
        (lambda: inclusion_probabilities([1.0, 0.0], 1), "weights"),
        (lambda: inclusion_probabilities([1.0, 1.0], 3), "k"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
