"""Orders are permutations that are computed: everywhere alike, reversible, reached at once."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainplan import PlanError
from trainplan.data import Order
from trainplan.data.hashing import scaled
from trainplan.data.order import LARGEST, permute, permute_back

SIZES = [1, 2, 3, 5, 99, 65535, 65536, 65537, 65536 + 255, 257**2, 300**2 - 1, 300**2 + 1, 131072]
HUGE = [10**6, 10**9, 10**12, LARGEST - 1, LARGEST]


@pytest.mark.parametrize("n", SIZES)
def test_each_epoch_holds_every_example_once(n):
    order = Order(n, seed=5)
    for epoch in (0, 3):
        examples = order.stretch(epoch, 0, n)
        assert np.array_equal(np.sort(examples), np.arange(n))
        assert np.array_equal(order.position_of(examples, epoch), np.arange(n))


@pytest.mark.parametrize("n", [*range(1, 40), 65, 199])
def test_the_computed_mode_permutes_small_sets_too(n):
    numbers = np.arange(n, dtype=np.int64)
    permute(numbers, n, tuple(range(8)))
    assert sorted(numbers) == list(range(n))
    permute_back(numbers, n, tuple(range(8)))
    assert numbers.tolist() == list(range(n))


@settings(max_examples=40, deadline=None)
@given(st.integers(65537, LARGEST), st.integers(0, 2**128 - 1), st.integers(0, 9), st.data())
def test_any_size_is_inverted_exactly_and_read_alike_in_every_way(n, seed, epoch, data):
    order = Order(n, seed)
    offset = data.draw(st.integers(0, n - 40))
    examples = order.stretch(epoch, offset, 40)
    assert ((examples >= 0) & (examples < n)).all()
    assert len(set(examples.tolist())) == 40
    assert order.position_of(examples, epoch).tolist() == list(range(offset, offset + 40))
    shuffled = np.array(data.draw(st.permutations(range(40))))
    assert np.array_equal(order.at_offsets(offset + shuffled, epoch), examples[shuffled])
    position = epoch * n + offset
    assert np.array_equal(order[position : position + 40], examples)
    assert order[position + 3] == examples[3]
    iterator = order.iterate(position)
    assert [next(iterator) for _ in range(5)] == examples[:5].tolist()


@given(st.integers(1, 300), st.integers(0, 900), st.integers(0, 700))
def test_a_block_goes_on_across_epochs(n, first, number):
    order = Order(n, seed=1)
    whole = np.concatenate([order.stretch(epoch, 0, n) for epoch in range(1600 // n + 2)])
    assert np.array_equal(order.block(first, number), whole[first : first + number])
    positions = np.arange(first, first + number)
    assert np.array_equal(order[positions], whole[positions])


def test_small_stretches_equal_a_large_one():
    order = Order(200_003, seed=2)
    whole = Order(200_003, seed=2).stretch(0, 0, 200_003)
    for number in (1, 7, 1000, 16384, 20000):
        parts = [order.stretch(0, i, min(number, 200_003 - i)) for i in range(0, 200_003, number)]
        assert np.array_equal(np.concatenate(parts[-3:]), whole[-sum(map(len, parts[-3:])) :])
        if number >= 1000:
            assert np.array_equal(np.concatenate(parts), whole)


def test_what_is_given_out_can_be_written_to():
    order = Order(100_000)
    first = order[:10].copy()
    order[:10][:] = 0
    assert np.array_equal(order[:10], first)


def test_seeds_epochs_and_streams_are_unrelated():
    n = 70_000
    orders = [
        Order(n, 0).stretch(0, 0, n),
        Order(n, 0).stretch(1, 0, n),
        Order(n, 1).stretch(0, 0, n),
        Order(n, 2 << 64).stretch(0, 0, n),
        Order(n, 0, stream=1).stretch(0, 0, n),
    ]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            # Of n agreements by chance one is expected.
            assert (one == other).sum() < 10
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.02


def test_epochs_are_alike_on_request():
    for n in (100, 100_000):
        order = Order(n, reshuffle=False)
        assert np.array_equal(order[5:50], order[3 * n + 5 : 3 * n + 50])
        assert order.position_of(order[7], epoch=4) == 7


def test_five_examples_come_in_every_arrangement_equally_often():
    seeds = 12_000
    counts = dict.fromkeys(range(120), 0)
    for seed in range(seeds):
        digits = Order(5, seed)[:5].tolist()
        rank = 0
        for i, digit in enumerate(digits):
            rank = rank * (5 - i) + sum(other < digit for other in digits[i + 1 :])
        counts[rank] += 1
    expected = seeds / 120
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert 119 - 4 * 15.4 < chi_square < 119 + 4 * 15.4


@pytest.mark.parametrize("n", [65537, 10**6 + 3])
def test_positions_and_examples_are_independent(n):
    table = np.zeros((16, 16))
    for seed in range(4):
        examples = Order(n, seed).stretch(0, 0, n)
        np.add.at(table, (np.arange(n) * 16 // n, examples * 16 // n), 1)
    expected = table.sum() / 256
    chi_square = ((table - expected) ** 2 / expected).sum()
    assert 225 - 4 * 21.2 < chi_square < 225 + 4 * 21.2


@pytest.mark.parametrize("n", HUGE)
def test_memory_does_not_grow_with_the_data(n):
    Order(70_000)[0]  # work buffers
    tracemalloc.start()
    order = Order(n)
    order[0]
    order[n // 2 : n // 2 + 1000]
    order.block(n - 5, 100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6
    assert len(pickle.dumps(order)) < 200


def test_a_copy_from_another_process_is_the_same_order():
    order = Order(10**9, seed=3, stream=2)
    copy = pickle.loads(pickle.dumps(order))
    assert copy == order
    assert np.array_equal(copy[100:200], order[100:200])


@pytest.mark.parametrize("bits", [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 0x123456789ABCDEF0])
@pytest.mark.parametrize("n", [1, 10, 2**32 - 1, 2**32 + 7, 2**48])
def test_random_bits_are_scaled_exactly(bits, n):
    assert scaled(np.array([bits], dtype=np.uint64), n)[0] == bits * n >> 64


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: Order(0), "n"),
        (lambda: Order(2**48 + 1), "n"),
        (lambda: Order(True), "n"),
        (lambda: Order(5, seed=-1), "seed"),
        (lambda: Order(5, seed=True), "seed"),
        (lambda: Order(5, seed=1.0), "seed"),
        (lambda: Order(5, seed=2**128), "seed"),
        (lambda: Order(5)[-1], "position"),
        (lambda: Order(5)[2:], "position"),
        (lambda: Order(5)[0:4:2], "position"),
        (lambda: Order(5)[np.array([-1])], "position"),
        (lambda: Order(5).position_of(5), "example"),
        (lambda: Order(10**6).position_of(10**6), "example"),
        (lambda: Order(10**6).at_offsets(np.array([10**6])), "offset"),
        (lambda: Order(5).stretch(0, 3, 3), "offset"),
    ],
)
def test_mistakes_are_named(make, place):
    with pytest.raises(PlanError) as caught:
        make()
    assert caught.value.place == place
