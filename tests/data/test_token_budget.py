"""Every step holds as many tokens as fit into the budget, whoever reads it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import BatchSampler, Shuffle, TokenBudget


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 400).flatmap(lambda n: st.lists(st.integers(1, 50), min_size=n, max_size=n)),
    st.sampled_from([(1, 50), (2, 200), (4, 1000)]),
    st.booleans(),
    st.integers(0, 9),
)
def test_steps_are_as_full_as_they_can_be(lengths, shape, padded, seed):
    multiple, budget = shape
    lengths, n = np.array(lengths), len(lengths)
    shuffle = Shuffle(n, 16, seed)
    source = TokenBudget(shuffle, lengths, budget, steps=12, multiple=multiple, padded=padded)
    stream = lengths[shuffle.order.block(0, source.position(12) + multiple)]

    def tokens(part):
        return len(part) * part.max() if padded else part.sum()

    for step in range(12):
        first, size = source.position(step), source.size(step)
        assert tokens(stream[first : first + size]) <= budget
        assert size % multiple == 0
        assert tokens(stream[first : first + size + multiple]) > budget
        assert source.longest[step] == stream[first : first + size].max()
        assert (lengths[source.examples(step, 0, size)] == stream[first : first + size]).all()


def test_the_data_are_seen_up_to_the_last_step_that_is_full():
    lengths = np.random.default_rng(0).integers(1, 300, 10_000)
    source = TokenBudget(Shuffle(10_000, 8, epochs=1, tail="wrap"), lengths, 20_000, multiple=4)
    seen = [i for batch in BatchSampler(source, ranks=2, rank="all") for i in batch]
    assert len(set(seen)) == len(seen) == source.position(source.steps)
    rest = set(range(10_000)) - set(seen)
    assert len(rest) * 300 <= 3 * 20_000
    whole = [list(batch) for batch in BatchSampler(source, ranks=1)]
    later = BatchSampler(source, ranks=1, shape=source.longest)
    state = BatchSampler(source, ranks=4, rank=1, shape=source.longest).state_dict(step=5)
    later.load_state_dict(state)
    rows = [[i for i, _ in batch] for batch in later]
    assert rows == whole[5:]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: TokenBudget(Shuffle(3, 1), [4, 4, 11], 10, steps=9), "step . cannot hold 1"),
        (lambda: TokenBudget(Shuffle(3, 1), [4, 4, 4], 10), "steps"),
        (lambda: TokenBudget(Shuffle(3, 1), [4, 4], 10, steps=1), "3 examples"),
        (lambda: TokenBudget(Shuffle(3, 1), [4, 4, 0], 10, steps=1), "1 or more"),
        (
            lambda: TokenBudget(Shuffle(3, 1, epochs=1, tail="wrap"), [4, 4, 4], 99),
            "do not fill",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(make, match):
    with pytest.raises(PlanError, match=match):
        make()
