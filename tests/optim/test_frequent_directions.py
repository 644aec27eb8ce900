"""A sketch is never above what was added, and never far below."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan.errors import PlanError
from trainplan.optim import FrequentDirections
from trainplan.optim.frequent_directions import left_singular


def matrices(rows, columns, number, seed):
    random = torch.Generator().manual_seed(seed)
    return [
        torch.randn(rows, columns, generator=random, dtype=torch.float64) for _ in range(number)
    ]


@given(
    rows=st.integers(2, 8),
    columns=st.integers(2, 8),
    rank=st.integers(1, 6),
    number=st.integers(1, 5),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_the_energy_of_a_direction_is_kept_up_to_what_was_cut(rows, columns, rank, number, seed):
    given_ = matrices(rows, columns, number, seed)
    sketch = FrequentDirections(rank)
    for matrix in given_:
        sketch.add(matrix)
    kept = sketch.directions * sketch.values
    everything = sum(matrix @ matrix.T for matrix in given_)
    missing = torch.linalg.eigvalsh(everything - kept @ kept.T)
    lost = everything.trace() - kept.square().sum()
    assert missing.min() > -1e-9 * everything.trace()
    assert missing.max() <= lost / rank + 1e-9 * everything.trace()
    assert sketch.directions.shape[1] <= rank


def test_a_sketch_goes_on_from_its_parts():
    first, second = matrices(5, 6, 2, 0)
    whole = FrequentDirections(3, decay=0.5)
    whole.add(first)
    again = FrequentDirections(3, 0.5, whole.directions, whole.values)
    whole.add(second)
    again.add(second)
    assert torch.equal(whole.directions, again.directions)
    assert torch.equal(whole.values, again.values)


def test_a_matrix_of_low_rank_is_kept_whole():
    (matrix,) = matrices(6, 2, 1, 0)
    sketch = FrequentDirections(3)
    sketch.add(matrix)
    kept = sketch.directions * sketch.values
    assert torch.allclose(kept @ kept.T, matrix @ matrix.T)


def test_few_singular_vectors_are_found_the_same_way_each_time():
    (matrix,) = matrices(40, 30, 1, 3)
    one, two = left_singular(matrix, 5), left_singular(matrix, 5)
    assert torch.equal(one[0], two[0])
    assert torch.allclose(one[1][:3], left_singular(matrix)[1][:3], rtol=0.05)


def test_a_rank_of_zero_is_refused():
    with pytest.raises(PlanError, match="rank"):
        FrequentDirections(0)
