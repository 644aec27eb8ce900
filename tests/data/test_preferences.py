"""Larger factors disturb more, and pairs have a better half."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from trainplan import PlanError
from trainplan.data import (
    BatchSampler,
    PairFilter,
    ProgressivePreferenceSchedule,
    block_reverse,
    block_shuffle,
    block_size,
    blocks,
    clarity,
    frame_weights,
    fuse_segments,
    group_drop,
    inversions,
    keep_groups,
    keep_scenes,
    perturbation_distance,
    preference_pairs,
    random_drop,
    sharpest_frame,
    similar_drop,
    similarity_groups,
    usable_clips,
)

sizes = st.integers(2, 40)
factors = st.sampled_from([2, 4, 8, 16])


@settings(max_examples=60, deadline=None)
@given(sizes, factors, st.integers(0, 2**32 - 1))
def test_blocks_move_whole_and_drops_keep_the_order(n, r, seed):
    items, generator = list(range(n)), np.random.default_rng(seed)
    size = block_size(n, r)
    parts = [list(part) for part in blocks(items, r)]
    for moved in (block_reverse(items, r), block_shuffle(items, r, generator)):
        assert sorted(moved) == items
        assert moved != items
        place = {item: i for i, item in enumerate(moved)}
        assert all(
            [place[x] - place[part[0]] for x in part] == list(range(len(part))) for part in parts
        )
    kept = random_drop(items, r, generator)
    assert kept == sorted(set(kept))
    assert len(kept) == size
    similar = similar_drop(items, np.eye(n), r, generator)
    assert similar == sorted(set(similar))
    assert len(similar) == size
    if size == n // r and n % r == 0:  # whole blocks, twice reversed, are as they were
        assert block_reverse(block_reverse(items, r), r) == items


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(12)))
def test_inversions_are_kendalls(order):
    tau = kendalltau(range(12), order).statistic
    assert inversions(order) == pytest.approx((1 - tau) / 2 * 66)
    assert perturbation_distance(order, 12) == pytest.approx((1 - tau) / 2)


def test_larger_factors_are_further_from_the_order():
    reverse = [inversions(block_reverse(range(32), r)) for r in (2, 4, 8, 16)]
    assert reverse == sorted(set(reverse))
    generator = np.random.default_rng(0)
    for make in (block_shuffle, random_drop):
        mean = [
            np.mean([perturbation_distance(make(range(32), r, generator), 32) for _ in range(300)])
            for r in (4, 8, 16)
        ]
        assert mean == sorted(mean)


def test_a_shuffle_of_two_blocks_is_a_disturbance_unless_it_may_not_be():
    generator = np.random.default_rng(0)
    assert {tuple(block_shuffle("abcd", 2, generator)) for _ in range(20)} == {tuple("cdab")}
    allowed = [
        block_shuffle("abcd", 2, random.Random(i), allow_identity=True) == list("abcd")
        for i in range(200)
    ]
    assert 70 < sum(allowed) < 130


def test_drops_of_groups_and_of_what_is_similar():
    groups = [0, 1, 0, 2, 1, 2, 3, 3]
    seen = set()
    for seed in range(20):
        kept = group_drop(range(8), groups, 4, np.random.default_rng(seed))
        left = {groups[i] for i in kept}
        assert kept == [i for i in range(8) if groups[i] in left]
        assert len(left) == 1
        seen |= left
    assert seen == {0, 1, 2, 3}
    close = np.kron(np.eye(2), np.ones((3, 3)))
    for seed in range(20):  # of two triples the one that is begun goes first
        kept = similar_drop(range(6), close, 2, np.random.default_rng(seed))
        assert kept in ([0, 1, 2], [3, 4, 5])


def test_pairs_do_not_depend_on_other_examples():
    prompts, items = ["a", "b", "c"], [list("abcdefgh"), list("ijklmnop"), list("qrstuvwx")]
    pairs = preference_pairs(prompts, items, "".join, 4, seed=5)
    longer = preference_pairs([*prompts, "d"], [*items, list("yz")], "".join, 4, seed=5)
    assert all(longer[name][: len(pairs[name])] == pairs[name] for name in pairs)
    assert pairs["kind"] == ["drop", "reverse", "shuffle"] * 3
    assert pairs["rejected"][1] == "ghefcdab"
    assert all(c not in r for c, r in zip(pairs["chosen"], pairs["rejected"], strict=True))
    assert pairs["distance"][1] == perturbation_distance([6, 7, 4, 5, 2, 3, 0, 1], 8)
    assert preference_pairs(["a"], [list("aaaa")], "".join, 2)["kind"] == ["drop"]
    assert len(preference_pairs(["a"], [list("aaaa")], "".join, 2, keep=None)["kind"]) == 3


def test_stages_pool_their_kinds_and_end_with_fine_tuning():
    schedule = ProgressivePreferenceSchedule({2: 5, 4: 33, 16: 40}, (16, 4, 2), sft=20)
    assert [schedule.factor_at(t) for t in range(schedule.steps)] == [16] * 3 + [4] * 3 + [2] + [
        None
    ] * 2
    seen = [len(batch) for batch in BatchSampler(schedule)]
    assert seen == [16, 16, 8, 16, 16, 1, 5, 16, 4]
    assert schedule.sft_starts_at == 7
    assert max(schedule.lr_at(range(7))) <= 5e-6 < max(schedule.lr_at(range(7, 9)))
    rates = [schedule.plan(k)["lr"](t) for k, n in enumerate(schedule.lengths) for t in range(n)]
    assert schedule.lr_at(range(9)).tolist() == rates


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(0, 999))
def test_groups_agree_with_merging_by_hand(n, seed):
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    close = vectors @ vectors.T
    sets, table = [{i} for i in range(n)], close.copy()
    while True:
        pairs = [(table[i, j], i, j) for i in range(len(sets)) for j in range(i)]
        best = max(pairs, default=(-2, 0, 0))
        if best[0] <= 0.5:
            break
        _, i, j = best
        row = (table[i] + table[j]) / 2
        table[j], table[:, j] = row, row
        sets[j] |= sets.pop(i)
        table = np.delete(np.delete(table, i, 0), i, 1)
    marks = similarity_groups(close, 0.5)
    assert sorted(map(sorted, sets)) == sorted(
        sorted(np.flatnonzero(marks == mark).tolist()) for mark in set(marks.tolist())
    )


def test_filters_of_videos():
    assert usable_clips([5, 6, 60], 30).tolist() == [False, True, True]
    assert keep_scenes([10] * 4, 30)
    assert not keep_scenes([10] * 33, 30)
    segments = fuse_segments([0, 0, 1, 2, 2, 3])
    assert [group for group, _ in segments] == [0, 1, 2, 3]
    assert keep_groups([group for group, _ in segments])
    sharp, flat = np.tile([0.0, 1.0], (4, 2)), np.full((4, 4), 7.0)
    assert clarity(sharp) > clarity(flat) == 0
    assert frame_weights(9).argmax() == 4
    assert sharpest_frame(np.ones(8), 9) == 4


def test_the_objective_is_trls():
    torch = pytest.importorskip("torch")
    from trainplan.models import answer_log_probability, preference_loss

    torch.manual_seed(0)
    policy, reference = torch.randn(2, 5, 2)
    loss = preference_loss(policy, reference, beta=0.3, label_smoothing=0.1)
    margin = 0.3 * ((policy - reference) @ torch.tensor([1.0, -1.0]))
    expected = 0.9 * torch.log1p(torch.exp(-margin)) + 0.1 * torch.log1p(torch.exp(margin))
    torch.testing.assert_close(loss, expected)
    logits, labels = torch.randn(2, 4, 3), torch.tensor([[-100, 1, 2, -100], [0, 0, -100, 1]])
    each = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none"
    )
    torch.testing.assert_close(answer_log_probability(logits, labels), -each.view(2, 3).sum(1))


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: block_size(0, 2), "n"),
        (lambda: block_shuffle("ab", 1, random.Random(0)), "items"),
        (lambda: group_drop("ab", [0], 2, np.random.default_rng()), "groups"),
        (lambda: similar_drop("ab", np.eye(3), 2, np.random.default_rng()), "similarity"),
        (lambda: inversions([[0]]), "order"),
        (lambda: PairFilter(0.5), "ratio"),
        (lambda: PairFilter().keep("flip", "a", "b"), "kind"),
        (lambda: preference_pairs(["a"], [], "".join, 2), "items"),
        (lambda: preference_pairs(["a"], ["b"], "".join, 2), "items[0]"),
        (lambda: preference_pairs(["a"], ["bc"], "".join, 2, kinds=["flip"]), "kinds"),
        (lambda: ProgressivePreferenceSchedule({16: 4}), "stages"),
        (lambda: ProgressivePreferenceSchedule({4: 4}, (4, 4)), "stages"),
        (lambda: similarity_groups([[1, 0]]), "similarity"),
        (lambda: sharpest_frame([1], 4), "clarities"),
        (lambda: frame_weights(1), "interval"),
        (lambda: clarity([1, 2]), "frame"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, place):
    with pytest.raises(PlanError) as error:
        make()
    assert error.value.place == place
