"""Whole words are masked within the budget, at the rate of the step, whatever the workers do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import choose_words, mask_rate, replace_words, select_words


@st.composite
def sentences(draw):
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=12))
    ids = [-1] + [word for word, n in enumerate(lengths) for _ in range(n)] + [-1]
    return np.array(ids)


@given(sentences(), st.floats(0, 1), st.randoms())
def test_words_are_whole_and_fit_the_budget(ids, rate, random):
    order = list(range(ids.max() + 1))
    random.shuffle(order)
    chosen = select_words(ids, order, rate)
    assert chosen.tokens.sum() <= chosen.budget == max(1, round(rate * (ids >= 0).sum()))
    assert not chosen.tokens[ids < 0].any()
    for word in order:
        inside = chosen.tokens[ids == word]
        assert inside.all() if word in chosen.words else not inside.any()


@given(sentences(), st.floats(0, 1), st.randoms())
def test_every_word_left_out_did_not_fit_any_more(ids, rate, random):
    order = list(range(ids.max() + 1))
    random.shuffle(order)
    chosen = select_words(ids, order, rate)
    left = chosen.budget - chosen.tokens.sum()
    skipped = [(ids == word).sum() for word in order if word not in chosen.words]
    assert all(size > left for size in skipped)


@given(st.lists(sentences(), min_size=1, max_size=5), st.floats(0, 1), st.integers(0, 99))
def test_a_batch_is_chosen_as_each_sentence_alone(rows, rate, seed):
    width = max(row.size for row in rows)
    ids = np.stack([np.pad(row, (0, width - row.size), constant_values=-1) for row in rows])
    together = choose_words(ids, rate, np.random.default_rng(seed))
    words = ids.max() + 1
    orders = np.argsort(np.random.default_rng(seed).random((len(rows), words)), axis=1)
    for row, order, tokens in zip(ids, orders, together, strict=True):
        own = [word for word in order if word in row]
        assert tokens.tolist() == select_words(row, own, rate).tokens.tolist()


def test_the_share_of_masked_tokens_over_a_run_is_the_integral_of_the_rate():
    rng = np.random.default_rng(0)
    rate = mask_rate(0.15, 0.30, "5%").resolve(400)
    ids = np.repeat(np.arange(30), [1, 2, 3] * 10)[None].repeat(8, axis=0)
    shares = [choose_words(ids, rate(t), rng).mean() for t in range(400)]
    assert np.mean(shares) == pytest.approx(0.225, rel=0.01)


def test_the_rate_of_the_abstract_needs_no_warmup():
    values = mask_rate(0.15, 0.30, 0).resolve(100)([0, 50, 100])
    assert values == pytest.approx([0.30, 0.225, 0.15])
    mean = mask_rate().resolve(10_000)(np.arange(10_000)).mean()
    assert mean == pytest.approx(0.225, rel=1e-3)


def test_words_are_replaced_as_a_whole_in_the_given_shares():
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(500), 2)[None]
    tokens = np.full_like(ids, 7)
    chosen = np.ones(ids.shape, dtype=bool)
    new = replace_words(
        tokens, ids, chosen, mask_token=99, vocabulary=np.array([3, 4]), rng=rng
    ).reshape(-1, 2)
    masked, kept = new == 99, new == 7
    assert (masked[:, 0] == masked[:, 1]).all()
    assert (kept[:, 0] == kept[:, 1]).all()
    assert masked.mean() == pytest.approx(0.8, abs=0.06)
    assert kept.mean() == pytest.approx(0.1, abs=0.05)
    assert set(new[~masked & ~kept]) == {3, 4}


def test_what_was_not_chosen_stays():
    rng = np.random.default_rng(0)
    tokens, ids = np.array([[5, 6, 7]]), np.array([[-1, 0, 1]])
    new = replace_words(
        tokens, ids, np.array([[False, True, False]]), mask_token=9, vocabulary=5, rng=rng,
        shares=(1, 0, 0),
    )  # fmt: skip
    assert new.tolist() == [[5, 9, 7]]


def test_a_batch_without_words_is_left_alone():
    assert not choose_words(np.full((2, 3), -1), 0.5, np.random.default_rng(0)).any()


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda: select_words([0, 1], [0], 0.5), "order"),
        (lambda: select_words([0, 1], [0, 0], 0.5), "order"),
        (lambda: select_words([0, 1], [0, 1], 1.5), "rate"),
        (lambda: select_words([[0]], [0], 0.5), "word_ids"),
        (lambda: choose_words([[-2]], 0.5, np.random.default_rng(0)), "word_ids"),
        (lambda: choose_words([[10**9]], 0.5, np.random.default_rng(0)), "word_ids"),
        (lambda: mask_rate(low=15), "low"),
        (lambda: mask_rate(high=-0.1), "high"),
        (lambda: _replace(shares=(0.8, 0.1, 0.2)), "shares"),
        (lambda: _replace(tokens=[[1, 2]]), "tokens"),
    ],
)
def test_bad_input_is_named(call, place):
    with pytest.raises(PlanError) as caught:
        call()
    assert caught.value.place == place


def _replace(tokens=((1,),), shares=(0.8, 0.1, 0.1)):
    rng, chosen = np.random.default_rng(0), np.ones((1, 1), dtype=bool)
    return replace_words(tokens, [[0]], chosen, mask_token=9, vocabulary=9, rng=rng, shares=shares)
