"""Curricula show what is open, all of it, in the order they promise, and resume exactly."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan import schedules as s
from trainplan.data import BatchSampler, Curriculum, Order, Ranking, controls, describe, pacing
from trainplan.data.difficulty import column_difficulty, random_difficulty
from trainplan.data.ranks import rank_into

RNG = np.random.default_rng(0)
HARD = RNG.permutation(500).astype(np.float32)


def course(within="pass", size=16, **kwargs):
    rule = None if within == "sorted" else pacing("root", 0.1, full_at=40)
    return Curriculum(HARD, rule, size, seed=4, within=within, **kwargs)


def step_of(source, step):
    return source.examples(step, 0, source.global_batch)


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.5, -math.inf, math.inf]), min_size=1, max_size=60),
    st.integers(1, 9),
)
def test_sorting_in_parts_is_sorting(values, bucket):
    hard, ties = np.array(values), Order(len(values), 1).stretch(0, 0, len(values))
    ranked = np.empty(len(values), np.uint32)
    rank_into(ranked, lambda a, b: hard[a:b], lambda examples: ties[examples], bucket)
    assert ranked.tolist() == np.lexsort((ties, hard)).tolist()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.integers(0, 9), st.booleans())
def test_a_ranking_sorts_and_shuffles_ties_by_the_order_of_stream_3(values, seed, hardest):
    ranking = Ranking(values, seed, hardest_first=hardest)
    ties = Order(len(values), seed, stream=3).stretch(0, 0, len(values))
    sign = -1 if hardest else 1
    expected = sorted(range(len(values)), key=lambda i: (sign * values[i], ties[i]))
    assert ranking.examples.tolist() == expected
    for threshold in range(-1, 7):
        is_open = [v >= threshold if hardest else v <= threshold for v in values]
        assert ranking.open_at(threshold) == sum(is_open)


def test_unsigned_and_infinite_difficulties_can_be_turned_round():
    assert Ranking(np.array([0, 3, 1], np.uint8), hardest_first=True).examples.tolist() == [1, 2, 0]
    assert Ranking([math.inf, 0.0, -math.inf]).examples.tolist() == [2, 1, 0]


def test_a_cached_ranking_is_read_from_disk(tmp_path, monkeypatch):
    path = tmp_path / "difficulty.npy"
    np.save(path, HARD)
    mapped = np.load(path, mmap_mode="r")
    first = Ranking(mapped, 3, cache=tmp_path / "cache")
    assert isinstance(first.examples, np.memmap)
    monkeypatch.setattr(Ranking, "_sort", lambda self: pytest.fail("sorted again"))
    again = Ranking(mapped, 3, cache=tmp_path / "cache")
    assert np.array_equal(again.examples, first.examples)
    assert first.examples.nbytes == 4 * HARD.size


@pytest.mark.parametrize(("kind", "half"), [("linear", 0.6), ("geometric", 0.2**0.5)])
def test_pacings_go_from_start_to_all(kind, half):
    c = pacing(kind, 0.2, full_at="50%").resolve(100)
    assert [c(0), c(50), c(99)] == [0.2, 1.0, 1.0]
    assert c(25) == pytest.approx(half)


def test_a_root_pacing_opens_by_the_power_law_of_competence():
    for power in (1, 2, 3):
        c = pacing("root", 0.1, full_at=200, power=power)
        t = np.arange(201)
        expected = (t / 200 * (1 - 0.1**power) + 0.1**power) ** (1 / power)
        assert np.allclose(c(t), expected, rtol=1e-12)


def test_a_step_pacing_jumps_evenly():
    c = pacing("step", "20%", full_at=100, steps=4)
    assert [c(t) for t in (0, 24, 25, 50, 75, 100)] == pytest.approx([0.2, 0.2, 0.4, 0.6, 0.8, 1])


def test_each_pass_shows_what_was_open_at_its_start_once():
    source = course()
    seen = np.concatenate([step_of(source, t) for t in range(60)])
    position, k = 0, 0
    rank_of = np.argsort(source.ranking.examples)
    while position < 500:
        opened = source.open_at(position // 16)
        ranks = rank_of[seen[position : position + opened]]
        assert sorted(ranks) == list(range(opened))
        assert ranks.tolist() == Order(opened, 4).stretch(k, 0, opened).tolist()
        position, k = position + opened, k + 1


def test_draws_are_different_examples_of_what_is_open_now():
    source = course("draw")
    rank_of = np.argsort(source.ranking.examples)
    for step in range(50):
        ranks = rank_of[step_of(source, step)]
        opened = source.open_at(step)
        assert ranks.tolist() == Order(opened, 4).stretch(step, 0, 16).tolist()
        assert len(set(ranks)) == 16


def test_sorted_goes_once_from_easy_to_hard_and_then_shuffles():
    source = course("sorted", size=50)
    first = np.concatenate([step_of(source, t) for t in range(10)])
    assert (np.diff(HARD[first]) >= 0).all()
    second = np.concatenate([step_of(source, t) for t in range(10, 20)])
    assert sorted(second) == list(range(500))
    assert not (np.diff(HARD[second]) >= 0).all()
    uneven = course("sorted", size=16)
    seen = np.concatenate([step_of(uneven, t) for t in range(63)])[:1000]
    assert np.array_equal(seen[:500], first)
    assert sorted(seen[500:]) == list(range(500))


def test_by_value_ties_open_together():
    levels = np.repeat([1.0, 2.0, 3.0], [10, 20, 30])
    thresholds = s.Sequence(*(s.Hold(x, 2) for x in (1, 1.5, 2)), s.Hold(9))
    source = Curriculum(levels, thresholds, 4, by="value")
    assert [source.open_at(t) for t in range(0, 8, 2)] == [10, 10, 30, 60]
    empty = Curriculum(levels, 0.5, 4, by="value")
    with pytest.raises(PlanError, match="no example is open at step 3"):
        empty.open_at(3)
    assert Curriculum(levels, 0.5, 4, by="value", on_empty="least").open_at(0) == 4


def test_a_pacing_may_fall_again():
    source = Curriculum(HARD, pacing("linear", 1.0, 10, end=0.2), 100)
    assert [source.open_at(t) for t in (0, 5, 10, 20)] == [500, 300, 100, 100]
    assert set(step_of(source, 15)) <= set(source.ranking.examples[:180])


@pytest.mark.parametrize("within", ["pass", "draw", "sorted"])
@settings(max_examples=25)
@given(step=st.integers(0, 60), layout=st.sampled_from([(1, 1), (2, 2), (4, 1), (16, 1)]))
def test_any_step_is_reached_with_and_without_a_state_on_any_ranks(within, step, layout):
    whole = BatchSampler(course(within))
    expected = [list(whole.batch(i)) for i in range(step, step + 3)]
    whole.seek(step=step)
    state = json.loads(json.dumps(whole.state_dict()))
    assert len(json.dumps(state)) < 1000
    got = []
    for rank in range(layout[0]):
        sampler = BatchSampler(course(within), ranks=layout[0], rank=rank, accumulation=layout[1])
        sampler.load_state_dict(state)
        iterator = iter(sampler)
        got.append([list(next(iterator)) for _ in range(3 * layout[1])])
    merged = [
        [x for a in range(layout[1]) for r in range(layout[0]) for x in got[r][t * layout[1] + a]]
        for t in range(3)
    ]
    assert merged == expected
    # Without a state, the same point is found by going through the passes.
    assert step_of(course(within), step).tolist() == expected[0]


def test_the_budget_is_the_baselines():
    source = course(steps=30)
    assert len(BatchSampler(source, ranks=2, rank=0)) == 30
    assert len(list(BatchSampler(source))) == 30
    assert describe(source).samples == 30 * 16


def test_relative_pacings_are_measured_in_the_runs_steps():
    source = Curriculum(HARD, pacing("linear", 0.0, full_at="50%"), 10, steps=40)
    assert [source.open_at(t) for t in (0, 10, 20)] == [10, 250, 500]
    tokens = Curriculum(HARD, pacing("linear", 0.0, full_at=2000), 10, steps=40, units_per_step=100)
    assert [tokens.open_at(t) for t in (0, 10, 20)] == [10, 250, 500]
    with pytest.raises(PlanError, match="needs its length"):
        Curriculum(HARD, pacing("linear", 0.0, full_at="50%"), 10)


def test_controls_see_as_much_data():
    runs = {
        name: describe(Curriculum(ranking, pacing("linear", 0.2, 20), 10, steps=20))
        for name, ranking in controls(HARD).items()
    }
    assert len({(run.samples, run.never) for run in runs.values()}) == 1
    rankings = controls(HARD)
    easy = set(rankings["curriculum"].examples[:100].tolist())
    assert easy == set(rankings["anti"].examples[-100:].tolist())
    assert len(easy & set(rankings["random"].examples[:100].tolist())) < 50


def test_what_will_be_seen_is_known_before_the_run():
    told = describe(Curriculum(HARD, 0.3, 15, steps=20))
    assert told.deciles == (2.0, 2.0, 2.0, *[0.0] * 7)
    assert (told.never, told.most, told.samples) == (350, 2, 300)
    assert told.seen == pytest.approx(300 / 500)


def test_examples_are_ranked_anew_from_a_step_on():
    new = HARD[::-1].copy()
    drawn = course("draw")
    before = [step_of(drawn, t).tolist() for t in range(6)]
    drawn.set_difficulty(new, at=3)
    after = [step_of(drawn, t).tolist() for t in range(6)]
    assert after[:3] == before[:3]
    opened = set(np.argsort(new)[: drawn.open_at(3)].tolist())
    assert set(after[3]) <= opened

    passing = course()
    passing.set_difficulty(new, at=3)
    begins = [0]
    while begins[-1] < 6 * 16:
        begins.append(begins[-1] + passing.open_at(begins[-1] // 16))
    seen = np.concatenate([step_of(passing, t) for t in range(12)])
    changed = next(b for b in begins if b >= 3 * 16)
    plain = np.concatenate([step_of(course(), t) for t in range(12)])
    assert np.array_equal(seen[:changed], plain[:changed])
    assert not np.array_equal(seen[changed:], plain[changed:])

    sampler = BatchSampler(passing)
    sampler.seek(step=8)
    state = sampler.state_dict()
    with pytest.raises(PlanError, match="set_difficulty as before"):
        BatchSampler(course()).load_state_dict(state)
    again = course()
    again.set_difficulty(new, at=3)
    resumed = BatchSampler(again)
    resumed.load_state_dict(state)
    assert list(next(iter(resumed))) == seen[128:144].tolist()


def test_another_difficulty_or_pacing_is_not_resumed():
    state = BatchSampler(course()).state_dict()
    other = Curriculum(HARD[::-1].copy(), pacing("root", 0.1, full_at=40), 16, seed=4)
    with pytest.raises(PlanError, match="difficulty differs"):
        BatchSampler(other).load_state_dict(state)
    with pytest.raises(PlanError, match="pacing differs"):
        BatchSampler(Curriculum(HARD, 0.5, 16, seed=4)).load_state_dict(state)


def test_columns_become_difficulties():
    assert column_difficulty({"x": [3, 1]}, "x").tolist() == [3, 1]
    assert column_difficulty({"ids": [[1, 2], [1]]}, "ids").tolist() == [2, 1]
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": ["a", "abc"], "loss": [0.5, 0.1]})
    assert column_difficulty(data, "text").tolist() == [1, 3]
    assert column_difficulty(data, "loss", rows=1).tolist() == [0.5, 0.1]
    with pytest.raises(PlanError, match="Did you mean 'loss'"):
        column_difficulty(data, "los")


def test_random_difficulties_are_random():
    values = random_difficulty(10_000, seed=1)
    assert values.mean() == pytest.approx(0.5, abs=0.02)
    assert not np.array_equal(values, random_difficulty(10_000, seed=2))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Ranking([1.0, math.nan, math.nan]), r"2 difficulties .*"),
        (lambda: Ranking([]), "one number per example"),
        (lambda: Ranking(["a"]), "not an array of numbers"),
        (lambda: Curriculum(HARD, None, 4), "needs a pacing"),
        (lambda: Curriculum(HARD, 0.5, 4, within="sorted"), "takes no pacing"),
        (lambda: Curriculum(HARD, 0.5, 4, within="passes"), "Did you mean 'pass'"),
        (lambda: Curriculum(HARD, "half", 4), "neither a schedule"),
        (lambda: course().set_difficulty([1.0], at=3), "1 difficulties for 500"),
        (lambda: step_of(Curriculum(HARD, 0.01, 10, within="draw", least=5), 2), "5 examples are"),
        (lambda: pacing("cubic"), "pacing"),
        (lambda: pacing("linear", 1.5), r"\[0, 1\]"),
        (lambda: pacing("linear", "x%"), "not a number"),
        (lambda: pacing("geometric", 0), "above 0"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(PlanError, match=words):
        make()
